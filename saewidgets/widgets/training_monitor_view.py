"""What a training monitor shows of a run, and what may be done to it: plain Python, without a screen."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from saewidgets.activations import check_fits, harvest, pack
from saewidgets.features import TextSample
from saewidgets.models import share, to_ids, vocabulary_of
from saewidgets.training.live import label
from saewidgets.widgets._base import Answer, feature_in_range, token_as_json
from saewidgets.widgets._following import RunView
from saewidgets.widgets.feature_dashboard_view import packed

if TYPE_CHECKING:
    import pandas as pd
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

SAMPLE = 20_000
"""Tokens that a feature's strongest examples are looked up in."""
EXAMPLES = 8
"""Examples of a snapshot."""
WINDOW = 32
"""Tokens on each side of a peak."""
PATIENCE = 0.3
"""Seconds after which what is found so far is shown."""
KEPT = 512
"""Pairs of a snapshot and a feature whose examples are kept, some kilobytes each."""

NO_TEXT = (
    "This monitor has no text to look for examples in. Give it some: TrainingMonitor(run, model=model, texts=texts)."
)


class TrainingMonitorView(RunView):
    """What a monitor shows of one run, and what may be done to it. Plain Python.

    Args:
        run: The run; it may be at any point, and others may watch it too.
        model: The bridge that the activations come from, to read text at the run's snapshots; None: the one that the
            run's stream reads, if it has one.
        texts: What a feature's examples are looked up in, up to SAMPLE tokens; None: what the run's stream holds out,
            and then the first of what it trains on.

    Raises:
        ValueError: the model has no such hook, or not of this size; the texts are empty.
        TypeError: a single string, or something else that is no list of texts.
    """

    requests: ClassVar[tuple[str, ...]] = (*RunView.requests, "events", "history", "examples", "change")

    def __init__(self, run: TrainingRun, model: TransformerBridge | None = None, texts: Texts | None = None) -> None:
        super().__init__(run)
        given = model if model is not None else getattr(run.acts, "model", None)
        self.model = None if given is None else share(given)
        self.sample = self._sample_of(texts)
        self.looked_at = False
        """Whether examples were asked for: an exported page then carries them."""
        # a snapshot does not change, so neither does what a feature fires on there
        self._examples_at = lru_cache(maxsize=KEPT)(self._find_examples)

    def _sample_of(self, texts: Texts | None) -> TextSample | None:
        """The text to look examples up in; None without a model, or where neither texts nor the stream give one."""
        if self.model is None:
            return None
        self.site = check_fits(self.run.sae, self.model)
        metadata = self.run.metadata
        if texts is not None:
            size = metadata.context_size or min(128, int(self.model.cfg.n_ctx))
            contexts = pack(self.model, texts, size, metadata.prepend_bos, max_tokens=SAMPLE)
        elif hasattr(self.run.acts, "excerpt"):
            contexts = self.run.acts.excerpt(SAMPLE)
        else:
            return None
        return TextSample(self.model, contexts, self.site, metadata.excluded_positions) if len(contexts) else None

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

    def examples(self, feature: int, steps: Sequence[int]) -> Iterator[Answer]:
        """The places where a feature is most active, at each of some snapshots of the run; grows while it is found.

        The first time the text is read too, which takes some seconds.

        Returns:
            `feature`, `n_tokens` (in which was looked), `read` (the share of them that is read), `steps` (those done so
            far, in order), `counts` (examples of each), and what `FeatureDashboardView.examples` says of all of these
            one after the other, with its buffers.

        Raises:
            ValueError: the monitor has no text to look in, or a step is not one of the run's snapshots.
            traitlets.TraitError: there is no such feature.
        """
        if self.sample is None:
            raise ValueError(NO_TEXT)
        feature_in_range(feature, self.run.cfg.d_sae)
        self.looked_at = True
        found: dict[int, pd.DataFrame] = {}
        for share in self.sample.read():
            yield self._found(feature, found, share)
        told = time.monotonic()
        for step in sorted(steps, reverse=True):  # the last one first: there the feature is most itself
            found[step] = self._examples_at(step, feature)
            if time.monotonic() - told > PATIENCE:
                yield self._found(feature, found, 1.0)
                told = time.monotonic()
        yield self._found(feature, found, 1.0)

    def _find_examples(self, step: int, feature: int) -> pd.DataFrame:
        assert_never_none = self.sample
        return assert_never_none.examples(self.run.sae_at(step), feature, n=EXAMPLES, window=WINDOW)

    def _found(self, feature: int, found: dict[int, pd.DataFrame], read: float) -> Answer:
        import pandas as pd

        steps = sorted(found)
        frames = [found[step] for step in steps if len(found[step])]
        every = pd.concat(frames) if frames else pd.DataFrame(columns=["tokens", "values", "peak", "position", "context"])
        result, buffers = packed(every, vocabulary_of(self.model).display)
        about = {
            "feature": feature,
            "n_tokens": self.sample.n_tokens,
            "read": read,
            "steps": steps,
            "counts": [len(found[step]) for step in steps],
        }
        return {**about, **result}, buffers

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
            "reads": self.model is not None,
            "n_sampled": None if self.sample is None else self.sample.n_tokens,
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
