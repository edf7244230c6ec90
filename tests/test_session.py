"""The session of the README, as a script: on the embedded model word for word, on other people's models with theirs.

Only the budgets are smaller: what is asked here is that every line works, not that the SAE is good.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def session() -> str:
    """The first Python block of the README."""
    found = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert found, "the README has no Python block"
    return found.group(1)


def more_ways() -> str:
    """The second Python block of the README."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]


def smaller(code: str, n_tokens: int, n_texts: int) -> str:
    """The same lines with smaller budgets; fails if the README no longer has what is made smaller here."""
    for old, new in {
        "n_tokens=1_000_000": f"n_tokens={n_tokens}",
        'path="features/")': 'path="features/", max_tokens=4_000)',
        "texts = sw.load_texts() ": f"texts = [text for text in sw.load_texts() if 'bridge' in text][:{n_texts}] ",
        "batch_size=2048": "batch_size=512",
        'sw.load_texts(split="held_out"))': 'sw.load_texts(split="held_out")[:20])',
    }.items():
        assert old in code, f"the README's session has no {old!r}"
        code = code.replace(old, new)
    return code


def on_another_model(code: str, load: str) -> str:
    """The session with a model of somebody else's: there is no SAE beforehand, so one is trained first."""
    first = f"""
model = {load}
_acts = sw.ActivationStream(model, sw.load_texts()[:60], hook_name="blocks.2.hook_resid_post", context_size=128,
                            batch_size=512, seed=0)
_first = sw.SAE(sw.SAEConfig(d_in=_acts.d_in, d_sae=1024, architecture="topk", k=16))
sw.train(_first, _acts, sw.TrainConfig(n_tokens=8_000)).wait()
"""
    code = re.sub(r"model = sw\.load_model\(\).*\n", lambda _: first, code, count=1)
    assert "sae = sw.load_sae()" in code and "[:20])" in code
    code = code.replace("[:20])", "[:4])")  # each held-out text goes through the whole model three times
    return code.replace("sae = sw.load_sae()", "sae = _first")


def run(code: str, folder: Path) -> str:
    checked = code + (
        "\nassert run.state == 'finished' and len(run.metrics) >= 5"
        "\nassert (sw.load_sae('my-sae').W_dec == mine.W_dec).all()"
        "\nassert browser.feature is None or 0 <= browser.feature < index.d_sae"
        "\nprint('done')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", checked],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert (folder / "features.html").stat().st_size > 20_000
    return done.stdout


def test_the_session_on_the_embedded_model(tmp_path: Path) -> None:
    assert run(smaller(session(), 20_000, 200), tmp_path).endswith("done\n")


def test_the_session_on_stories15m(tmp_path: Path, stories15m: Path) -> None:
    code = on_another_model(smaller(session(), 8_000, 60), f"sw.load_model({str(stories15m)!r})")
    assert run(code, tmp_path).endswith("done\n")


def test_the_session_on_smollm2(tmp_path: Path, smollm2_gguf: Path) -> None:
    code = on_another_model(smaller(session(), 4_000, 40), f"sw.load_model({str(smollm2_gguf)!r})")
    assert run(code, tmp_path).endswith("done\n")


def test_the_other_ways_to_train(tmp_path: Path) -> None:
    code = more_ways()
    for old, new in {"1_000_000, ": "6_000, ", "200_000": "2_000", "500_000": "4_000", "2048": "512"}.items():
        assert old in code, f"the README's block has no {old!r}"
        code = code.replace(old, new)
    first = """
import saewidgets as sw
acts = sw.ActivationStream(sw.load_model(), sw.load_texts()[:20], hook_name="blocks.2.hook_resid_post", batch_size=256)
"""
    last = "\nassert run.state == 'finished' and len(swept.table()) == 3\nprint(run.events)"
    command = [sys.executable, "-c", first + code + last]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert " lr " in done.stdout
