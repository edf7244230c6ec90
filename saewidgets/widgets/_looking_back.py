"""What the monitors share that look back at a run's snapshots: what is chosen, and what a page of it carries."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, ClassVar

import traitlets

from saewidgets.widgets._base import Params, Text, feature_in_range
from saewidgets.widgets._following import FollowingWidget
from saewidgets.widgets.look_back import LookBack


class LookingBackWidget(FollowingWidget):
    """A widget with a snapshot, a feature and a prompt that is read at each snapshot."""

    followed: ClassVar[tuple[str, ...]] = (*FollowingWidget.followed, "_snapshots")

    prompt = Text("", help="The text read at each snapshot.").tag(sync=True)
    feature = traitlets.Int(None, allow_none=True, help="The feature that gives the colour.").tag(sync=True)
    snapshot_step = traitlets.Int(None, allow_none=True, help="The snapshot looked back at.").tag(sync=True)
    _snapshots = traitlets.List(traitlets.Int(), read_only=True).tag(sync=True)

    @property
    @abstractmethod
    def _back(self) -> LookBack | None:
        """What is looked back at; None while nothing is."""

    @property
    def _which(self) -> Params:
        """What a question has to name beside the feature and the steps."""
        return {}

    @traitlets.validate("feature")
    def _feature_exists(self, proposal: dict[str, Any]) -> int | None:
        value: int | None = proposal["value"]
        return None if value is None else feature_in_range(value, self._chosen(proposal).d_sae)

    @traitlets.validate("snapshot_step")
    def _snapshot_exists(self, proposal: dict[str, Any]) -> int | None:
        value: int | None = proposal["value"]
        if value is None:
            return None
        steps = self._chosen(proposal).run.snapshots
        if value not in steps:
            there = ", ".join(map(str, steps)) or "none yet"
            raise traitlets.TraitError(f"There is no snapshot of step {value}. There are snapshots of steps: {there}.")
        return value

    def _chosen(self, proposal: dict[str, Any]) -> LookBack:
        back = self._back
        if back is None:
            raise traitlets.TraitError(f"Choose an SAE first: sae=0, then {proposal['trait'].name}.")
        return back

    def _take_over(self) -> None:
        back = self._back
        self.set_trait("_snapshots", [] if back is None else back.run.snapshots)

    def recorded_look_back(self) -> Iterable[tuple[str, Params]]:
        """The requests of what is looked back at, for a page without a kernel."""
        back, steps = self._back, list(self._snapshots)
        if back is None or back.model is None or not steps:
            return
        history = {**self._which, "prompt": self.prompt, "feature": self.feature, "steps": steps}
        yield "history", history
        # to read the text for nobody would be long
        chosen = self.snapshot_step is not None or self.feature is not None
        if back.n_sampled is not None and (chosen or back.looked_up):
            feature = self.feature
            with suppress(ValueError):  # an empty prompt chooses none
                feature = self.answer("history", history)[0]["feature"] if feature is None else feature
            if feature is not None:
                yield "examples", {**self._which, "feature": feature, "steps": steps}

    def snapshot(self) -> dict[str, Any]:
        taken = super().snapshot()
        for answer in taken["answers"]:
            if answer["method"] in ("history", "examples"):  # the run may have gone on since
                taken["state"]["_snapshots"] = answer["params"]["steps"]
        return taken
