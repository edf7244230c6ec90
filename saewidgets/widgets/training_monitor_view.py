"""What a training monitor shows of a run, and what may be done to it: plain Python, without a screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from saewidgets.activations import check_fits, harvest
from saewidgets.models import share, to_ids, vocabulary_of
from saewidgets.training.live import label
from saewidgets.widgets._base import Answer, feature_in_range, finite, sentence, token_as_json

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

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

class TrainingMonitorView:
    """What a monitor shows of one run, and what may be done to it. Plain Python.

    Args:
        run: The run; it may be at any point, and others may watch it too.
        model: The bridge that the activations come from, to read a prompt at the run's snapshots; None does without.

    Raises:
        ValueError: the model has no such hook, or not of this size.
    """

    requests: ClassVar[tuple[str, ...]] = ("rows", "events", "history", "change", "pause", "resume", "stop")

    def __init__(self, run: TrainingRun, model: TransformerBridge | None = None) -> None:
        self.run = run
        if model is not None:
            self.site = check_fits(run.sae, model)
        self.model = None if model is None else share(model)

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
        told = [{"step": int(event["step"]), "label": _mark(event)} for event in events]
        return {"since": since, "events": told}, []

    @torch.no_grad()
    def history(self, prompt: str, steps: Sequence[int], feature: int | None = None) -> Answer:
        """How strongly a feature fires on each of the prompt's n tokens, at each of some snapshots of the run.

        `feature`: None takes the one that fires most strongly on the prompt at the last of `steps`.

        Returns:
            `tokens` (text, special, hex), `feature`, `steps`, and the buffers values float32 [steps, n] and strongest
            int32 [steps, n], the strongest feature of each token at each step. What the SAE leaves out has 0.

        Raises:
            ValueError: the monitor has no model, a step is not one of the run's snapshots, the prompt is empty or
                longer than the model's context.
            traitlets.TraitError: there is no such feature.
        """
        if self.model is None:
            raise ValueError("This monitor has no model to read a prompt with: TrainingMonitor(run, model=model).")
        if not steps:
            raise ValueError("The run has no snapshot yet to read the prompt with.")
        feature_in_range(feature, self.run.cfg.d_sae)
        metadata = self.run.metadata
        ids = to_ids(self.model, prompt, prepend_bos=metadata.prepend_bos)
        x = harvest(self.model, ids, self.site)[0].float().cpu()
        values: list[torch.Tensor] = []
        strongest: list[torch.Tensor] = []
        for step in sorted(steps, reverse=True):  # the last one first: it may have to choose the feature
            sae = self.run.sae_at(step)
            f = sae.encode(x.to(sae.W_dec.dtype)).float()
            f[[at for at in metadata.excluded_positions if at < len(f)]] = 0.0
            if feature is None:
                feature = int(f.amax(0).argmax())
            values.insert(0, f[:, feature])
            strongest.insert(0, f.argmax(-1))
        result = {
            "tokens": [token_as_json(token) for token in vocabulary_of(self.model).display(ids[0].tolist())],
            "feature": feature,
            "steps": sorted(steps),
        }
        buffers = [torch.stack(values).numpy().astype("<f4"), torch.stack(strongest).numpy().astype("<i4")]
        return result, [buffer.tobytes() for buffer in buffers]

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

    def pause(self) -> Answer:
        """Pause the run; it acts within a step. Returns the state asked for."""
        self.run.pause()
        return {"state": self.run.state}, []

    def resume(self) -> Answer:
        """Let a paused run go on."""
        self.run.resume()
        return {"state": self.run.state}, []

    def stop(self) -> Answer:
        """End the run where it stands; what it has learned stays in `run.sae`."""
        self.run.stop()
        return {"state": self.run.state}, []

    def progress(self) -> dict[str, Any]:
        """How far the run is: small enough to be sent five times a second."""
        now = self.run.progress
        metrics = self.run.metrics
        return {
            "state": now.state,
            "step": now.step,
            "n_steps": now.n_steps,
            "tokens": now.tokens,
            "n_tokens": now.n_tokens,
            "epoch": finite(now.epoch),
            "n_epochs": finite(now.n_epochs),
            "vectors_per_second": finite(now.vectors_per_second),
            "seconds_left": finite(now.seconds_left),
            "error": None if self.run.error is None else sentence(self.run.error),
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
            "reads": self.model is not None,
        }


def _mark(event: dict[str, Any]) -> str:
    """What was changed, in a few words that fit beside a curve: "lr 0.00354 → 0.002", "revive on → off"."""
    if isinstance(event["new"], bool):
        return label({**event, **{name: "on" if event[name] else "off" for name in ("old", "new")}})
    if event["old"] is None or event["old"] != event["old"]:  # a learning rate that was yet to be chosen
        return f"{event['name']} {event['new']:g}"
    if event["name"] in ("lr", "sparsity"):
        return label({**event, **{name: float(f"{event[name]:.3g}") for name in ("old", "new")}})
    return label(event)
