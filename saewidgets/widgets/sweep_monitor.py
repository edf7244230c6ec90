"""SweepMonitor: all SAEs of a sweep in one place while they train."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import traitlets

from saewidgets.training.sweep_table import COLOURS, DASHES, MEASURES
from saewidgets.widgets._base import Answer, Params, sentence
from saewidgets.widgets._following import RunView
from saewidgets.widgets._looking_back import LookingBackWidget
from saewidgets.widgets.look_back import LookBack, two_sided

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from saewidgets.activations.sources import Texts
    from saewidgets.training import SweepRun

COLUMNS = ("step", "tokens", *MEASURES)
"""Columns of a sweep's metrics that travel to the screen, in this order."""


class SweepMonitorView(RunView):
    """What a monitor shows of one sweep. Plain Python.

    Args:
        run: The sweep; it may be at any point.
        model, texts: To read text at the snapshots with, see `LookBack`.

    Raises:
        ValueError, TypeError: what `LookBack` raises.
    """

    requests: ClassVar[tuple[str, ...]] = (*RunView.requests, "events", "history", "examples")

    def __init__(self, run: SweepRun, model: TransformerBridge | None = None, texts: Texts | None = None) -> None:
        super().__init__(run)
        self._back = 0, LookBack(run.one(0), model, texts)

    def back(self, sae: int) -> LookBack:
        """What one SAE is looked back at with. That of another is made anew: only the text is kept for all."""
        number, back = self._back
        if number != sae:
            back = back.at(self.run.one(sae))
            self._back = sae, back
        return back

    def history(self, sae: int, prompt: str, steps: Sequence[int], feature: int | None = None) -> Answer:
        """See `LookBack.history`; the result names the `sae` too."""
        result, buffers = self.back(sae).history(prompt, steps, feature)
        return {**result, "sae": sae}, buffers

    def examples(self, sae: int, feature: int, steps: Sequence[int]) -> Iterator[Answer]:
        """See `LookBack.examples`."""
        return self.back(sae).examples(feature, steps)

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
        """What is trained: of each SAE its label, its options that differ, and how it is drawn.

        It changes only where `set` gives an SAE another option.
        """
        table = self.run.table()
        options = [name for name in table.columns if name not in (*MEASURES, "tokens", "error")]
        values = table[options].astype(object).where(table[options].notna(), None).to_numpy()
        saes = [
            {
                "label": label,
                "options": [None if value is None else str(value) for value in own],
                "architecture": cfg.architecture,
                "d_sae": cfg.d_sae,
                "two_sided": two_sided(cfg),
                "colour": COLOURS[sae % len(COLOURS)],
                "dash": DASHES[sae // len(COLOURS) % len(DASHES)],
            }
            for sae, (label, own, cfg) in enumerate(zip(self.run.labels, values, self.run.configs, strict=True))
        ]
        metadata = self.run.metadata
        return {
            "options": options,
            "saes": saes,
            "d_in": self.run.configs[0].d_in,
            "hook_name": metadata.hook_name,
            "model_name": metadata.model_name,
            "measures_ce_loss": self.run.measures_ce_loss,
            "reads": self._back[1].model is not None,
            "n_sampled": self._back[1].n_sampled,
        }


class SweepMonitor(LookingBackWidget):
    """All SAEs of a sweep: their curves, explained variance against L0 with its frontier, a table, pause and stop.

    The chosen SAE is looked back at: one feature at each of its snapshots, on a prompt and on what it fires on most
    strongly in a little text, as `TrainingMonitor` shows a run's.

    Args:
        run: What `sw.sweep` returned; it may be at any point.
        model: The bridge that the activations come from; None: the one that the sweep's stream reads, if it has one.
        texts: The text that a feature's strongest examples are looked up in, 20,000 tokens at most; None: what the
            stream holds out, and then the first of what it trains on.
        sae: The chosen SAE, by its number, which is drawn strong; None draws all alike. Clicking one sets it here, and
            setting it here moves the screen. Another SAE has other features, so `feature` then begins anew.
        prompt, feature, snapshot_step: Of the chosen SAE, as in `TrainingMonitor`.

    Raises:
        ValueError: the model has no such hook, or not of this size; the texts are empty.
        traitlets.TraitError: a number that no SAE has; a feature or a step that the chosen one does not have.
        TypeError: an unknown option, by name; texts that are no list of texts.
    """

    bundle_name: ClassVar[str] = "sweep_monitor"

    sae = traitlets.Int(None, allow_none=True, help="The SAE drawn strong, and looked back at.").tag(sync=True)

    _view: SweepMonitorView

    def __init__(
        self,
        run: SweepRun,
        *,
        model: TransformerBridge | None = None,
        texts: Texts | None = None,
        prompt: str = "Once upon a time",
        **options: Any,
    ) -> None:
        self._n = len(run.labels)
        super().__init__(SweepMonitorView(run, model, texts), prompt=prompt, **options)

    @classmethod
    def options(cls) -> list[str]:
        return ["feature", "prompt", "sae", "snapshot_step", "layout"]

    @property
    def _back(self) -> LookBack | None:
        sae = self.sae
        return self._view.back(sae) if sae is not None and 0 <= sae < self._n else None

    @property
    def _which(self) -> Params:
        return {"sae": self.sae}

    @traitlets.validate("sae")
    def _sae_exists(self, proposal: dict[str, Any]) -> int | None:
        value: int | None = proposal["value"]
        return None if value is None else self._existing(value)

    def _existing(self, sae: int) -> int:
        if not 0 <= sae < self._n:
            raise traitlets.TraitError(f"There is no SAE number {sae}: the sweep's are 0 to {self._n - 1}.")
        return sae

    def _chosen(self, proposal: dict[str, Any]) -> LookBack:
        if self.sae is not None:  # given along with a feature, it may be looked at after it
            self._existing(self.sae)
        return super()._chosen(proposal)

    @traitlets.observe("sae")
    def _begin_anew(self, change: dict[str, Any]) -> None:
        if change["old"] is not None:  # else nothing was looked back at, or all is chosen at once
            self.feature = None
        self._take_over()
        if self.snapshot_step not in self._snapshots:
            self.snapshot_step = None

    def _take_over(self) -> None:
        super()._take_over()
        told = [sae["label"] for sae in self._about.get("saes", ())]
        if told and told != self._view.run.labels:  # `set` changed an option that is part of what they are called by
            self.set_trait("_about", self._view.about())

    def recorded_requests(self) -> Iterable[tuple[str, Params]]:
        yield "rows", {"since": [0] * self._n}
        yield "events", {"since": 0}
        yield from self.recorded_look_back()

    def shown(self) -> dict[str, Any]:
        return {"saes": self._n, "hook_name": self._about["hook_name"]}
