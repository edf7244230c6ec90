"""A build appears whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from saewidgets.features.folder import remove_leftovers, replacing

META = '{"format": "saewidgets feature index"}'


def test_the_folder_appears_at_the_end(tmp_path):
    target = tmp_path / "deep" / "index"
    with replacing(target, overwrite=False) as folder:
        (folder / "meta.json").write_text(META)
        assert not target.exists() and folder.parent == target.parent
    assert os.listdir(target) == ["meta.json"]
    assert os.listdir(target.parent) == ["index"]
    assert target.stat().st_mode & 0o777 == (tmp_path / "deep").stat().st_mode & 0o777


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupt_leaves_nothing(tmp_path, error):
    with pytest.raises(error), replacing(tmp_path / "index", overwrite=False) as folder:
        (folder / "meta.json").write_text(META)
        raise error
    assert os.listdir(tmp_path) == []


def test_an_interrupted_overwrite_leaves_the_old_one(tmp_path):
    target = tmp_path / "index"
    target.mkdir()
    (target / "meta.json").write_text(META)
    (target / "old").write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(target, overwrite=True):
        raise KeyboardInterrupt
    assert (target / "old").read_text() == "old" and os.listdir(tmp_path) == ["index"]
    with replacing(target, overwrite=True) as folder:
        (folder / "meta.json").write_text(META)
    assert os.listdir(target) == ["meta.json"] and os.listdir(tmp_path) == ["index"]


def test_what_is_no_index_is_never_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.md").write_text("years of work")
    with pytest.raises(FileExistsError, match="are left alone"), replacing(tmp_path / "thesis", overwrite=True):
        pass
    with pytest.raises(FileExistsError, match="is a file"):
        with replacing(tmp_path / "thesis" / "chapter.md", overwrite=True):
            pass
    assert (tmp_path / "thesis" / "chapter.md").read_text() == "years of work"


def test_an_index_is_replaced_only_when_asked(tmp_path):
    target = tmp_path / "index"
    target.mkdir()
    with replacing(target, overwrite=False) as folder:  # an empty folder is as good as none
        (folder / "meta.json").write_text(META)
    with pytest.raises(FileExistsError, match="give overwrite=True to replace it"), replacing(target, overwrite=False):
        pass


def test_what_a_killed_build_left_is_removed_and_a_living_one_stays(tmp_path):
    target = tmp_path / "index"
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom saewidgets.features.folder import replacing\n"
        "with replacing(Path(sys.argv[1]), overwrite=False) as folder:\n"
        "    (folder / 'meta.json').write_text('{}')\n    print(folder, flush=True)\n    time.sleep(60)\n"
    )
    builder = subprocess.Popen([sys.executable, "-c", script, str(target)], stdout=subprocess.PIPE, text=True)
    try:
        left = builder.stdout.readline().strip()
        (tmp_path / ".index.replaced-x").mkdir()
        (tmp_path / ".other.building-x").mkdir()
        remove_leftovers(target)
        assert os.path.isdir(left)  # its builder lives
        assert sorted(os.listdir(tmp_path)) == sorted([os.path.basename(left), ".other.building-x"])
    finally:
        builder.send_signal(signal.SIGKILL)
        builder.wait()
    time.sleep(0.05)
    assert not target.exists() and os.path.isdir(left)
    remove_leftovers(target)
    assert os.listdir(tmp_path) == [".other.building-x"]
