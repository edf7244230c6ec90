"""What a training monitor shows of a run, and what may be done to it: plain Python, without a screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from saewidgets.training.live import label
from saewidgets.widgets._base import Answer
from saewidgets.widgets._following import RunView
from saewidgets.widgets.look_back import LookBack

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from saewidgets.activations.sources import Texts
    from saewidgets.training import TrainingRun

COLUMNS = (
    "step",
    "tokens",
    "epoch",
    "seconds",
    "loss",
    "explained_variance",
    "l0",
    "ce_loss_recovered",
    "dead_fraction",
    "vectors_per_second",
)
"""What of a run's metrics travels to the screen, in this order."""


class TrainingMonitorView(RunView):
    """What a monitor shows of one run, and what may be done to it. Plain Python.

    Args:
        run: The run; it may be at any point, and others may watch it too.
        model, texts: To read text at the run's snapshots with, see `LookBack`.

    Raises:
        ValueError, TypeError: what `LookBack` raises.
    """

    requests: ClassVar[tuple[str, ...]] = (*RunView.requests, "events", "history", "examples", "change")

    def __init__(self, run: TrainingRun, model: TransformerBridge | None = None, texts: Texts | None = None) -> None:
        super().__init__(run)
        self.back = LookBack(run, model, texts)

    def rows(self, since: int = 0) -> Answer:
        """The logged rows from number `since` on.

        Returns:
            `since`, `columns` (names), `dead_window` (tokens; None before the first row), and the buffer float32
            [rows, columns], NaN where a measure was not taken.

        Raises:
            ValueError: `since` is negative.
        """
        if since < 0:
            raise ValueError(f"Rows are counted from 0, got since={since}.")
        metrics = self.run.metrics
        window = int(metrics["dead_window"].iloc[-1]) if len(metrics) else None
        values = metrics.iloc[since:].reindex(columns=list(COLUMNS)).to_numpy("<f4")
        return {"since": since, "columns": list(COLUMNS), "dead_window": window}, [values.tobytes()]

    def events(self, since: int = 0) -> Answer:
        """What was changed while the run went on, from event number `since` on.

        Returns:
            `since`, and `events`: of each its `step` and its `label`, "k 32 → 16". No buffers.

        Raises:
            ValueError: `since` is negative.
        """
        if since < 0:
            raise ValueError(f"Events are counted from 0, got since={since}.")
        events = self.run.events.to_dict("records")[since:]
        told = [{"step": int(event["step"]), "label": label(event)} for event in events]
        return {"since": since, "events": told}, []

    def history(self, prompt: str, steps: Sequence[int], feature: int | None = None) -> Answer:
        """See `LookBack.history`."""
        return self.back.history(prompt, steps, feature)

    def examples(self, feature: int, steps: Sequence[int]) -> Iterator[Answer]:
        """See `LookBack.examples`."""
        return self.back.examples(feature, steps)

    def change(self, name: str, value: Any) -> Answer:
        """Set `lr`, `sparsity`, `k` or `revive` of the run, from its next step on.

        Returns:
            `knobs`, all of them as they are set now. No buffers.

        Raises:
            ValueError: `run.set` does not take it; its sentence.
            RuntimeError: the run is over.
        """
        try:
            self.run.set(**{name: value})
        except TypeError as error:  # to a reader a word where a number belongs is a wrong value like any other
            raise ValueError(str(error)) from error
        return {"knobs": self.run.knobs}, []

    def progress(self) -> dict[str, Any]:
        """How far the run is: small enough to be sent five times a second."""
        metrics = self.run.metrics
        return {
            **super().progress(),
            "rows": len(metrics),
            "skipped_steps": int(metrics["skipped_steps"].iloc[-1]) if len(metrics) else 0,
            "events": len(self.run.events),
            "knobs": self.run.knobs,
        }

    def about(self) -> dict[str, Any]:
        """What is trained, and on what: does not change while the run goes on."""
        cfg, metadata = self.run.cfg, self.run.metadata
        return {
            "architecture": cfg.architecture,
            "d_in": cfg.d_in,
            "d_sae": cfg.d_sae,
            "hook_name": metadata.hook_name,
            "model_name": metadata.model_name,
            "measures_ce_loss": self.run.measures_ce_loss,
            "reads": self.back.model is not None,
            "d_looked": self.back.d_sae,
            "two_sided": self.back.two_sided,
            "n_sampled": self.back.n_sampled,
        }
