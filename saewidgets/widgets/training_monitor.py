"""TrainingMonitor: how a run is doing while it trains, with its pause, go on and stop."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

import traitlets

from saewidgets.widgets._base import Params, Text, feature_in_range
from saewidgets.widgets._following import FollowingWidget
from saewidgets.widgets.training_monitor_view import TrainingMonitorView

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from saewidgets.activations.sources import Texts
    from saewidgets.training import TrainingRun

class TrainingMonitor(FollowingWidget):
    """A run's curves as they grow, its progress, and what steers it: pause, go on, stop, and the settings of `run.set`.

    Looking back, one feature is seen at each snapshot of the run: on a prompt, and on what it fires on most strongly in
    a little text, with the run's numbers then. All features of a step are in the browser of an index of it, which can
    be built while the run is paused and while it goes on:
    `sw.FeatureBrowser(sw.FeatureIndex.build(run.sae_at(step), model, texts, f"step-{step}"))`.

    Args:
        run: What `sw.train` returned. Shown late, the monitor begins with all that has happened; several may watch
            one run. Traits below follow the run and cannot be set: `run.pause()` and its sisters do that.
        model: The bridge that the activations come from; None: the one that the run's stream reads, if it has one.
            Without one there is no prompt and no example.
        texts: The text that a feature's strongest examples are looked up in, 20,000 tokens at most; None: what the
            run's stream holds out, and then the first of what it trains on. It is read when examples are first shown.
        prompt: What the feature is shown on. Typing another one on the screen sets it here, and the other way round.
        feature: That feature; None: the one that fires most strongly on the prompt at the last snapshot. Codes with
            signs (abstopk, linear dense) are looked back at as `sw.split_signs` has them: d_sae + i is the negative
            side of feature i.
        snapshot_step: The snapshot that is looked back at, one of `run.snapshots`; None: not looking back.

    Raises:
        ValueError: the model has no such hook, or not of this size; the texts are empty.
        traitlets.TraitError: a feature that the SAE does not have, a step at which there is no snapshot.
        TypeError: an unknown option, by name; texts that are no list of texts.
    """

    bundle_name: ClassVar[str] = "training_monitor"
    followed: ClassVar[tuple[str, ...]] = (*FollowingWidget.followed, "_snapshots")

    prompt = Text("", help="The text read at each snapshot.").tag(sync=True)
    feature = traitlets.Int(None, allow_none=True, help="The feature that gives the colour.").tag(sync=True)
    snapshot_step = traitlets.Int(None, allow_none=True, help="The snapshot looked back at.").tag(sync=True)
    _snapshots = traitlets.List(traitlets.Int(), read_only=True).tag(sync=True)

    _view: TrainingMonitorView
    def __init__(
        self,
        run: TrainingRun,
        *,
        model: TransformerBridge | None = None,
        texts: Texts | None = None,
        prompt: str = "Once upon a time",
        **options: Any,
    ) -> None:
        self._run = run
        super().__init__(TrainingMonitorView(run, model, texts), prompt=prompt, **options)
    @classmethod
    def options(cls) -> list[str]:
        return ["feature", "prompt", "snapshot_step", "layout"]

    @traitlets.validate("feature")
    def _feature_exists(self, proposal: dict[str, Any]) -> int | None:
        return feature_in_range(proposal["value"], self._view.back.d_sae)

    @traitlets.validate("snapshot_step")
    def _snapshot_exists(self, proposal: dict[str, Any]) -> int | None:
        value: int | None = proposal["value"]
        steps = self._run.snapshots
        if value is not None and value not in steps:
            there = ", ".join(map(str, steps)) or "none yet"
            raise traitlets.TraitError(f"There is no snapshot of step {value}. There are snapshots of steps: {there}.")
        return value

    def _take_over(self) -> None:
        self.set_trait("_snapshots", self._run.snapshots)

    def recorded_requests(self) -> Iterable[tuple[str, Params]]:
        yield "rows", {"since": 0}
        yield "events", {"since": 0}
        steps = list(self._snapshots)
        if self._about["reads"] and steps:
            history = {"prompt": self.prompt, "feature": self.feature, "steps": steps}
            yield "history", history
            if self._shows_examples:
                feature = self.feature
                with suppress(ValueError):  # an empty prompt chooses none
                    feature = self.answer("history", history)[0]["feature"] if feature is None else feature
                if feature is not None:
                    yield "examples", {"feature": feature, "steps": steps}

    @property
    def _shows_examples(self) -> bool:
        """Whether a reader has asked for examples: to read the text for nobody would be long."""
        chosen = self.snapshot_step is not None or self.feature is not None
        return self._about["n_sampled"] is not None and (chosen or self._view.back.looked_up)

    def snapshot(self) -> dict[str, Any]:
        taken = super().snapshot()
        for answer in taken["answers"]:
            if answer["method"] in ("history", "examples"):  # the run may have gone on since
                taken["state"]["_snapshots"] = answer["params"]["steps"]
        return taken

    def shown(self) -> dict[str, Any]:
        return {name: self._about[name] for name in ("architecture", "d_sae", "hook_name")}
