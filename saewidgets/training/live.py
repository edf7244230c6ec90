"""What may be changed while a run goes, and the record of it."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from saewidgets.sae import SAE
from saewidgets.sae.architectures import Knobs, get_architecture
from saewidgets.training.config import TrainConfig
from saewidgets.training.schedule import annealed_k, sparsity_factor

if TYPE_CHECKING:
    import pandas as pd

NAMES = ("lr", "sparsity", "k", "revive")
"""What `run.set` takes."""

ELSEWHERE = {
    "learning_rate": "lr",
    "l1_coefficient": "sparsity",
    "l0_coefficient": "sparsity",
    "sparsity_coefficient": "sparsity",
    "aux_coefficient": "revive",
}
"""What the same things are called in a config, or in other libraries."""

EVENT_COLUMNS = ("step", "tokens", "name", "old", "new")

Value = float | int | bool | None


class Settings:
    """The peak learning rate, the sparsity coefficient, k and whether dead features are revived, as set now.

    The schedules go on: the learning rate of a step is `lr` times the schedule's factor, its sparsity the coefficient
    times the warm-up's. A k that is set ends the annealing. What the architecture does not have is None.
    """

    def __init__(self, sae: SAE, config: TrainConfig) -> None:
        cfg, self._sae, self._config = sae.cfg, sae, config
        self.lr: float | None = config.lr
        self.sparsity: float | None = cfg.sparsity_coefficient if _has(sae, "sparsity") else None
        self.k: int | None = cfg.k if _has(sae, "k") else None
        self.revive: bool | None = True if _has(sae, "revive") else None
        self.annealing = config.k_anneal_from is not None
        if config.k_anneal_from is not None:
            if self.k is None:
                raise ValueError(
                    f"TrainConfig: k_anneal_from is given, but {cfg.architecture!r} has no k. Leave it out."
                )
            if config.k_anneal_from > cfg.d_sae:
                raise ValueError(
                    f"TrainConfig: k_anneal_from is {config.k_anneal_from}, but the SAE has {cfg.d_sae} features."
                )

    def values(self) -> dict[str, Value]:
        """All of them by name."""
        return {name: getattr(self, name) for name in NAMES}

    def lr_at(self, progress: float) -> float:
        """The learning rate of a step at `progress` (0 to 1) of the run."""
        return (self.lr or 0.0) * self._config.lr_factor(progress)

    def knobs_at(self, progress: float) -> Knobs:
        """What the architecture's loss is told at `progress`."""
        config, k = self._config, self.k if self.k is not None else self._sae.cfg.k
        if self.annealing:
            k = annealed_k(progress, k, config.k_anneal_from, config.k_anneal_fraction)
        factor = sparsity_factor(progress, config.sparsity_warmup_fraction)
        return Knobs(sparsity=(self.sparsity or 0.0) * factor, k=k, progress=progress)

    def check(self, changes: Mapping[str, Any]) -> None:
        """Raise, as a sentence, if one of the changes cannot be made; TypeError for unknown names and types."""
        if not changes:
            raise TypeError(f"Nothing to set. A run has: {', '.join(NAMES)}, as in run.set(lr=1e-4).")
        for name, value in changes.items():
            if name not in NAMES:
                near = ELSEWHERE.get(name) or next(iter(difflib.get_close_matches(name, NAMES, n=1)), None)
                hint = f" Did you mean {near!r}?" if near else ""
                raise TypeError(f"A run has no setting {name!r}.{hint} It has: {', '.join(NAMES)}.")
            if getattr(self, name) is None and name != "lr":
                what = {"sparsity": "sparsity penalty", "k": "k", "revive": "way to revive dead features"}[name]
                raise ValueError(f"{name} cannot be set: {self._sae.cfg.architecture!r} has no {what}.")
            self._check_value(name, value)

    def _check_value(self, name: str, value: Any) -> None:
        if name == "revive":
            if not isinstance(value, bool):
                raise TypeError(f"revive must be True or False, got {value!r}.")
        elif isinstance(value, bool) or not isinstance(value, int if name == "k" else (int, float)):
            raise TypeError(f"{name} must be a {'whole ' if name == 'k' else ''}number, got {value!r}.")
        elif name == "k":
            # the architecture knows its own limits
            dataclasses.replace(self._sae.cfg, k=int(value))
        elif not math.isfinite(value) or value < 0 or (name == "lr" and value == 0):
            limit = "above 0" if name == "lr" else "0 or more"
            raise ValueError(f"{name} must be {limit} and finite, got {value!r}.")

    def apply(self, changes: Mapping[str, Any]) -> list[tuple[str, Value, Value]]:
        """Make checked changes, and give back (name, old, new) of each. The SAE's config follows."""
        made: list[tuple[str, Value, Value]] = []
        for name, value in changes.items():
            old = getattr(self, name)
            new = float(value) if name in ("lr", "sparsity") else value
            setattr(self, name, new)
            made.append((name, old, new))
            if name == "k":
                self.annealing = False
            field = {"k": "k", "sparsity": "sparsity_coefficient"}.get(name)
            if field is not None:
                # what is trained with another k is an SAE with another k
                self._sae._cfg = dataclasses.replace(self._sae.cfg, **{field: new})  # type: ignore[arg-type]
        return made


def events_table(events: list[dict[str, Any]]) -> pd.DataFrame:
    """Events as a DataFrame; its columns are there before the first event is."""
    import pandas as pd

    return pd.DataFrame([dict(event) for event in events], columns=list(EVENT_COLUMNS))


def label(event: Mapping[str, Any]) -> str:
    """An event in a few words, for a mark on a curve: "lr 0.00354 → 0.002", "revive on → off"."""
    name = str(event["name"]).replace("_", " ")
    old, new = (_written(event["name"], event[when]) for when in ("old", "new"))
    return f"{name} {new}" if old is None else f"{name} {old} → {new}"


def _written(name: str, value: Any) -> str | None:
    """A setting as a mark shows it; None for a learning rate that was yet to be chosen."""
    if value is None or value != value:
        return None
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.3g}" if name in ("lr", "sparsity") else f"{value:g}" if isinstance(value, float) else str(value)


def _has(sae: SAE, name: str) -> bool:
    """Whether the SAE's architecture has this setting."""
    architecture = get_architecture(sae.cfg.architecture)
    if name == "revive":
        return architecture.resamples or _reads(sae, "aux_coefficient")
    return _reads(sae, {"sparsity": "sparsity_coefficient", "k": "k"}[name])


def _reads(sae: SAE, field: str) -> bool:
    reads = get_architecture(sae.cfg.architecture).reads
    return field in reads if reads is not None else getattr(sae.cfg, field) is not None
