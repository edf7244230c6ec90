"""The checkpoints of a sweep: a folder for each SAE, and what was written at one moment for all of them.

    my-sweep/
        sae-0/checkpoint-0007-step-1200/
        sae-1/checkpoint-0007-step-1200/

The state of each has a "sweep": the `number` of its SAE, how `many` there are, which `save` of the sweep it is of, the
`errors` of those that had failed by then, and how many `calls` of `set` there were.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saewidgets.training import checkpoints
from saewidgets.training.checkpoints import Checkpoint

_NAME = re.compile(r"sae-(\d+)")


def folder_of(home: str | os.PathLike[str], number: int) -> str:
    """Where one SAE of a sweep has its checkpoints."""
    return os.path.join(home, f"sae-{number}")


def folders(home: str | os.PathLike[str]) -> dict[int, Path]:
    """The folders of a sweep's SAEs that hold checkpoints, whole or not, by the number of the SAE."""
    found = {int(match[1]): path for path in Path(home).glob("sae-*") if (match := _NAME.fullmatch(path.name))}
    return {number: path for number, path in sorted(found.items()) if checkpoints.listed(path)}


@dataclass(frozen=True)
class Saved:
    """A sweep as it was at one moment."""

    members: list[Checkpoint]
    """One of each SAE, in order; of those in `errors` the last that there is."""
    errors: Mapping[int, str]
    """Why SAEs had failed, by number."""
    calls: int
    """Of `set`, so far."""
    saves: int
    """The number of the last save of which anything is there."""
    damaged: list[str]
    """Sentences on checkpoints that could not be read."""


def newest(home: str | os.PathLike[str]) -> Saved:
    """The newest moment of which all SAEs that had not failed have a whole checkpoint.

    A process may be killed after it wrote that of one SAE and before that of the next.

    Raises ValueError if there is none, with what is missing or damaged.
    """
    wrong: list[str] = []
    saves: dict[int, dict[int, tuple[Path, dict[str, Any]]]] = {}
    for number, folder in folders(home).items():
        for path in checkpoints.listed(folder):
            try:
                part = checkpoints.read_state(path).get("sweep")
            except ValueError as error:
                wrong.append(str(error))
                continue
            if part is not None and part["number"] == number:
                saves.setdefault(part["save"], {})[number] = path, part
    reasons: list[str] = []
    for save in sorted(saves, reverse=True):
        _, part = next(iter(saves[save].values()))
        errors = {int(number): said for number, said in part["errors"].items()}
        # of those that had failed, the last before that
        paths = {
            n: saves[at][n][0] for at in sorted(saves) if at <= save for n in saves[at] if at == save or n in errors
        }
        missing = [number for number in range(part["many"]) if number not in paths]
        if missing:
            reasons.append(f"Number {missing[0]} has none of the last one in {folder_of(home, missing[0])}.")
            continue
        try:
            members = [checkpoints.read(paths[number]) for number in range(part["many"])]
        except ValueError as error:
            wrong.append(str(error))
            continue
        return Saved(members, errors, part["calls"], max(saves), wrong)
    reason = [*wrong, *reasons, "They are of SAEs that were trained alone, or by an older version."][0]
    raise ValueError(
        f"The sweep in {home} cannot go on: there is no moment of which all its SAEs have a whole checkpoint. {reason} "
        f"One SAE alone goes on with resume_training({folder_of(home, next(iter(folders(home))))!r}, acts)."
    )
