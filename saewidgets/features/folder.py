"""The folder transaction of a build: made beside its place under a hidden name, moved there whole at the end.

An interrupted or killed build therefore leaves nothing that opens, and the next build of the same path removes
what it left. Whether a hidden folder belongs to a living build is asked of the operating system: its lock file is
locked, and the lock falls with the process.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from saewidgets.features.schema import is_index

_LOCK = "building.lock"


def _lock(file: IO[Any]) -> bool:
    """Try to lock an open file for this process; False where another one holds it."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _pattern(target: Path, what: str) -> str:
    return f".{target.name}.{what}-"


def remove_leftovers(target: Path) -> None:
    """Remove what killed builds of this path left beside it; a build that lives is not touched."""
    if not target.parent.is_dir():
        return
    for folder in target.parent.iterdir():
        if folder.name.startswith(_pattern(target, "replaced")):
            shutil.rmtree(folder, ignore_errors=True)
        elif folder.name.startswith(_pattern(target, "building")):
            try:
                file = (folder / _LOCK).open("a")
            except OSError:
                continue
            with file:
                abandoned = _lock(file)
            if abandoned:
                shutil.rmtree(folder, ignore_errors=True)


def check_target(target: Path, overwrite: bool) -> None:
    """Refuse a place that holds something else than an index: it is never replaced, overwrite or not.

    Raises FileExistsError.
    """
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise FileExistsError(f"{str(target)!r} is a file; a feature index needs a folder of its own")
    if any(target.iterdir()) and not is_index(target):
        raise FileExistsError(
            f"{str(target)!r} holds files that are not a feature index, and they are left alone; give another path"
        )
    if is_index(target) and not overwrite:
        raise FileExistsError(
            f"{str(target)!r} already holds a feature index; give overwrite=True to replace it, or another path"
        )


@contextmanager
def replacing(target: Path, overwrite: bool) -> Iterator[Path]:
    """Give a new folder beside `target`, and move it to `target` if the block ends well; remove it otherwise.

    Raises FileExistsError where something other than an index (or an index, without overwrite) is in the place.
    """
    check_target(target, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    folder = Path(tempfile.mkdtemp(prefix=_pattern(target, "building"), dir=target.parent))
    try:
        with (folder / _LOCK).open("a") as file:
            _lock(file)
            yield folder
        (folder / _LOCK).unlink()
        folder.chmod(0o777 & ~_umask())  # mkdtemp keeps others out; an index is shared like any other folder
        _move(folder, target, overwrite)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _move(folder: Path, target: Path, overwrite: bool) -> None:
    check_target(target, overwrite)  # again: the scan took minutes
    if target.is_dir() and any(target.iterdir()):
        old = Path(tempfile.mkdtemp(prefix=_pattern(target, "replaced"), dir=target.parent))
        os.replace(target, old)
        try:
            os.replace(folder, target)
        except BaseException:
            os.replace(old, target)
            raise
        shutil.rmtree(old, ignore_errors=True)
        return
    with suppress(OSError):
        target.rmdir()  # an empty folder in the place; Windows does not replace one
    os.replace(folder, target)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
