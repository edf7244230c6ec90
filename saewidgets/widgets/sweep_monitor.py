"""SweepMonitor: all SAEs of a sweep in one place while they train."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import traitlets

from saewidgets.training.sweep_table import COLOURS, DASHES, MEASURES
from saewidgets.widgets._base import Answer, Params, sentence
from saewidgets.widgets._following import FollowingWidget, RunView

if TYPE_CHECKING:
    from saewidgets.training import SweepRun

COLUMNS = ("step", "tokens", *MEASURES)
"""Columns of a sweep's metrics that travel to the screen, in this order."""


class SweepMonitorView(RunView):
    """What a monitor shows of one sweep. Plain Python."""

    requests: ClassVar[tuple[str, ...]] = (*RunView.requests, "events")

    def __init__(self, run: SweepRun) -> None:
        super().__init__(run)

    def rows(self, since: Sequence[int]) -> Answer:
        """The logged rows of each SAE from its own number `since[sae]` on.

        Returns:
            `since`, `columns` (names), `counts` (rows of each SAE), `dead_window` (vectors; None before the first
            row), and the buffer float32 [sum of counts, columns], the first SAE's rows first, NaN where a measure was
            not taken.

        Raises:
            ValueError: `since` is not one number of 0 or more for each SAE.
        """
        n = len(self.run.labels)
        if len(since) != n or any(number < 0 for number in since):
            raise ValueError(f"since needs {n} numbers of 0 or more, one for each SAE; got {list(since)}.")
        metrics = self.run.metrics
        own = [metrics[metrics["sae"] == sae].iloc[number:] for sae, number in enumerate(since)]
        values = [rows.reindex(columns=list(COLUMNS)).to_numpy("<f4").tobytes() for rows in own]
        result = {
            "since": list(since),
            "columns": list(COLUMNS),
            "counts": [len(rows) for rows in own],
            "dead_window": int(metrics["dead_window"].iloc[-1]) if len(metrics) else None,
        }
        return result, [b"".join(values)]

    def events(self, since: int = 0) -> Answer:
        """What was changed while the sweep went on, from number `since` on; what one `set` did to several SAEs is one.

        Returns:
            `since`, and `events`: of each its `step` and its `label`, "0, 2: k 32 → 16". No buffers.

        Raises:
            ValueError: `since` is negative.
        """
        if since < 0:
            raise ValueError(f"Events are counted from 0, got since={since}.")
        told = [{"step": mark.step, "label": mark.label} for mark in self.run.marks[since:]]
        return {"since": since, "events": told}, []

    def progress(self) -> dict[str, Any]:
        """How far the sweep is, with `rows`, the number of each SAE's, `errors`, a sentence for each failure, and the
        number of `events`."""
        counts = self.run.metrics["sae"].value_counts()
        return {
            **super().progress(),
            "rows": [int(counts.get(sae, 0)) for sae in range(len(self.run.labels))],
            "errors": {str(sae): sentence(error) for sae, error in self.run.errors.items()},
            "events": len(self.run.marks),
        }

    def about(self) -> dict[str, Any]:
        """What is trained: of each SAE its label, its options that differ, and how it is drawn."""
        table = self.run.table()
        options = [name for name in table.columns if name not in (*MEASURES, "tokens", "error")]
        values = table[options].astype(object).where(table[options].notna(), None).to_numpy()
        saes = [
            {
                "label": label,
                "options": [None if value is None else str(value) for value in own],
                "colour": COLOURS[sae % len(COLOURS)],
                "dash": DASHES[sae // len(COLOURS) % len(DASHES)],
            }
            for sae, (label, own) in enumerate(zip(self.run.labels, values, strict=True))
        ]
        metadata = self.run.metadata
        return {
            "options": options,
            "saes": saes,
            "d_in": self.run.configs[0].d_in,
            "hook_name": metadata.hook_name,
            "model_name": metadata.model_name,
            "measures_ce_loss": self.run.measures_ce_loss,
        }


class SweepMonitor(FollowingWidget):
    """All SAEs of a sweep: their curves, explained variance against L0 with its frontier, a table, pause and stop.

    Args:
        run: What `sw.sweep` returned; it may be at any point.
        sae: The SAE drawn strong, by its number; None draws all alike. Clicking one sets it here, and setting it here
            moves the screen.

    Raises:
        traitlets.TraitError: a number that no SAE has.
        TypeError: an unknown option, by name.
    """

    bundle_name: ClassVar[str] = "sweep_monitor"

    sae = traitlets.Int(None, allow_none=True, help="The SAE drawn strong.").tag(sync=True)

    def __init__(self, run: SweepRun, **options: Any) -> None:
        self._n = len(run.labels)
        super().__init__(SweepMonitorView(run), **options)

    @classmethod
    def options(cls) -> list[str]:
        return ["sae", "layout"]

    @traitlets.validate("sae")
    def _sae_exists(self, proposal: dict[str, Any]) -> int | None:
        value: int | None = proposal["value"]
        if value is not None and not 0 <= value < self._n:
            raise traitlets.TraitError(f"There is no SAE number {value}: the sweep's are 0 to {self._n - 1}.")
        return value

    def recorded_requests(self) -> Iterable[tuple[str, Params]]:
        yield "rows", {"since": [0] * self._n}
        yield "events", {"since": 0}

    def shown(self) -> dict[str, Any]:
        return {"saes": self._n, "hook_name": self._about["hook_name"]}
