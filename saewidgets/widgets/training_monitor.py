"""TrainingMonitor: how a run is doing while it trains, with its pause, go on and stop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from saewidgets.widgets._base import Params
from saewidgets.widgets._looking_back import LookingBackWidget
from saewidgets.widgets.look_back import LookBack
from saewidgets.widgets.training_monitor_view import TrainingMonitorView

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from saewidgets.activations.sources import Texts
    from saewidgets.training import TrainingRun


class TrainingMonitor(LookingBackWidget):
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
        super().__init__(TrainingMonitorView(run, model, texts), prompt=prompt, **options)

    @classmethod
    def options(cls) -> list[str]:
        return ["feature", "prompt", "snapshot_step", "layout"]

    @property
    def _back(self) -> LookBack:
        return self._view.back

    def recorded_requests(self) -> Iterable[tuple[str, Params]]:
        yield "rows", {"since": 0}
        yield "events", {"since": 0}
        yield from self.recorded_look_back()

    def shown(self) -> dict[str, Any]:
        return {name: self._about[name] for name in ("architecture", "d_sae", "hook_name")}
