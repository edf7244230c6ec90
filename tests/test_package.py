"""What the package as a whole promises: a light import, and nothing in it that would ask the network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STATIC = ROOT / "saewidgets" / "widgets" / "static"
HEAVY = (
    "IPython",
    "anywidget",
    "duckdb",
    "ipywidgets",
    "numpy",
    "pandas",
    "plotly",
    "pyarrow",
    "torch",
    "transformer_lens",
)
LIMIT_KB = 120

# Written in pieces: this file is searched too.
HOSTS = [
    ".".join(parts)
    for parts in (
        ("registry", "npmjs", "org"),
        ("registry", "yarnpkg", "com"),
        ("pypi", "org"),
        ("files", "pythonhosted", "org"),
        ("download", "pytorch", "org"),
        ("deb", "debian", "org"),
        ("cdn", "jsdelivr", "net"),
        ("unpkg", "com"),
        ("cdnjs", "cloudflare", "com"),
        ("esm", "sh"),
        ("esm", "run"),
        ("cdn", "skypack", "dev"),
        ("fonts", "googleapis", "com"),
        ("fonts", "gstatic", "com"),
    )
]

PROBE = """
import json, sys, time
start = time.perf_counter()
import saewidgets
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "modules": sorted({name.split(".")[0] for name in sys.modules})}))
"""


def test_importing_it_is_quick_and_loads_nothing_heavy() -> None:
    probes = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
        probes.append(json.loads(done.stdout))
    assert sorted(set(HEAVY) & set(probes[0]["modules"])) == []
    assert min(probe["seconds"] for probe in probes) < 0.3


def test_the_exporter_is_light_for_the_server_that_lists_it() -> None:
    """JupyterLab's server imports every announced exporter in its own process, to list them in a menu."""
    code = "import saewidgets.widgets.nbconvert_exporter, sys; print({'torch', 'transformer_lens'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_registry_or_a_content_network() -> None:
    named = []
    for file in [*tracked_files(), *STATIC.glob("*.js")]:
        content = file.read_bytes()
        named += [f"{file.relative_to(ROOT)}: {host}" for host in HOSTS if names(content, host.encode())]
    assert named == []


def names(content: bytes, host: bytes) -> bool:
    """Whether a host stands in the text as a name of its own, not as the beginning of a longer one."""
    at = content.find(host)
    while at >= 0:
        after = content[at + len(host) : at + len(host) + 1]
        before = content[at - 1 : at] if at else b""
        if not after.isalnum() and not before.isalnum():
            return True
        at = content.find(host, at + 1)
    return False


def test_a_bundle_for_each_view_and_none_too_big() -> None:
    views = {path.parent.name for path in (ROOT / "js" / "src").glob("*/index.ts*")}
    bundles = {bundle.stem: bundle.stat().st_size for bundle in STATIC.glob("*.js")}
    assert views and set(bundles) == views, "run `make js`"
    assert {name: size for name, size in bundles.items() if size > LIMIT_KB * 1000} == {}


@pytest.mark.parametrize("view", sorted(path.parent.name for path in (ROOT / "js" / "src").glob("*/index.ts*")))
def test_a_bundle_stands_alone(view: str) -> None:
    """A notebook host loads it from a blob address, where an import of another file fails."""
    text = (STATIC / f"{view}.js").read_text(encoding="utf-8")
    assert not text.startswith("import") and ";import{" not in text and ";import " not in text
    assert "export{" in text.replace(" ", "")
    assert "sourceMappingURL" not in text


def test_the_demo_works_on_copies_and_loses_no_one_s_work(tmp_path: Path) -> None:
    notebooks = ROOT / "notebooks"
    copy = tmp_path / "01_quickstart.ipynb"
    original = (notebooks / copy.name).read_bytes()

    def make() -> None:
        subprocess.run(["make", "-C", ROOT, f"DEMO={tmp_path}", str(copy)], check=True, capture_output=True)

    make()
    assert copy.read_bytes() == original
    copy.write_text("what somebody did")
    make()
    assert copy.read_text() == "what somebody did"
    rounds = ["what somebody did", "what was done later", "and in the same second"]
    for done in rounds:
        copy.write_text(done)
        os.utime(copy, (0, 0))  # the notebook is newer now
        make()
        assert copy.read_bytes() == original
    assert sorted(path.read_text() for path in tmp_path.glob("01_quickstart_before_*.ipynb")) == sorted(rounds)
    assert len(list(tmp_path.iterdir())) == 1 + len(rounds)
