"""FeatureDashboard: one feature of an index: how often and how strongly it fires, on what, and what it writes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import traitlets

from saewidgets.widgets._base import Params, SAEWidget, feature_in_range
from saewidgets.widgets.feature_dashboard_view import (
    GROUPS,
    WINDOW,
    FeatureDashboardView,
    group_sentence,
    most_telling,
)

if TYPE_CHECKING:
    from saewidgets.features import FeatureIndex


class DashboardTraits(SAEWidget):
    """What can be chosen in a dashboard, wherever it is shown; each choice is seen and set from Python."""

    feature = traitlets.Int(help="The feature shown.").tag(sync=True)
    range = traitlets.List(
        traitlets.Float(),
        None,
        minlen=2,
        maxlen=2,
        allow_none=True,
        help="(low, high) of the activations whose examples are shown instead of a group's; None for none.",
    ).tag(sync=True)
    group = traitlets.Any("top", help='"top", "random", or an interval: 0 is the highest.').tag(sync=True)
    context = traitlets.Enum(
        ("snippet", "sentence", "full"), "snippet", help="How much of an example's text is shown."
    ).tag(sync=True)

    _recorded = traitlets.List(traitlets.Int(), help="Features that an exported page carries.").tag(sync=True)
    _window = traitlets.Int(WINDOW, help="Tokens on each side of a peak that are asked for.").tag(sync=True)

    @traitlets.validate("range")
    def _range_has_room(self, proposal: dict[str, Any]) -> list[float] | None:
        value: list[float] | None = proposal["value"]
        if value is not None and not (math.isfinite(value[0]) and math.isfinite(value[1]) and value[0] < value[1]):
            raise traitlets.TraitError(f"A range is (low, high) with low below high, got {tuple(value)}.")
        return value

    @traitlets.validate("group")
    def _group_exists(self, proposal: dict[str, Any]) -> str | int:
        value: str | int = proposal["value"]
        if isinstance(value, bool) or value not in GROUPS:
            raise traitlets.TraitError(group_sentence(value))
        return value

    def _let_go_of_the_range(self, _change: object) -> None:
        self.set_trait("range", None)  # it was in the units of another feature


class FeatureDashboard(DashboardTraits):
    """One feature: its measures, its histogram (brush it to filter the examples), its examples, its logit effects.

    Args:
        index: The index that knows the feature.
        feature: Its number; without one, the most telling feature of the index is shown.
        range: (low, high) of activations; examples come from there. Brushing the histogram sets it.
        group: "top", "random", or the number of an interval (0 is the highest).
        context: How much text of an example: "snippet", "sentence" or "full".

    Raises:
        traitlets.TraitError: a feature that the index does not have, an unknown group, an empty range.
        TypeError: an unknown option, by name.
    """

    bundle_name: ClassVar[str] = "feature_dashboard"

    _d_sae = traitlets.Int(help="How many features there are.").tag(sync=True)

    _view: FeatureDashboardView

    def __init__(self, index: FeatureIndex, feature: int | None = None, **options: Any) -> None:
        given = most_telling(index, 1)[0] if feature is None else feature
        super().__init__(FeatureDashboardView(index), feature=given, **options)
        self.observe(self._let_go_of_the_range, "feature")

    @traitlets.default("_d_sae")
    def _default_d_sae(self) -> int:
        return self._view.d_sae

    @traitlets.validate("feature")
    def _feature_exists(self, proposal: dict[str, Any]) -> int | None:
        return feature_in_range(proposal["value"], self._view.d_sae)

    def recorded_features(self) -> list[int]:
        """The features that an exported page carries: the one shown, and those it is linked to."""
        return [self.feature, *self._view.linked(self.feature)]

    def recorded_requests(self) -> Iterable[tuple[str, Params]]:
        for feature in self.recorded_features():
            yield from self._view.recorded(feature)

    def snapshot(self) -> dict[str, Any]:
        taken = super().snapshot()
        taken["state"].update(_d_sae=self._view.d_sae, _recorded=self.recorded_features(), _window=WINDOW)
        return taken

    def shown(self) -> dict[str, Any]:
        tokens = [token["text"] for token in self._view.feature(self.feature)[0]["tokens"][:3]]
        return {"feature": self.feature, "top_tokens": tokens}
