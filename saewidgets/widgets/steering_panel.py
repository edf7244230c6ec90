"""SteeringPanel: sliders for features, and what they do to the next token and to the text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import traitlets

from saewidgets.interventions import Edit
from saewidgets.widgets._base import Params, SAEWidget, Text, feature_in_range, sentence
from saewidgets.widgets.steering_view import MODES, Plain, SteeringView, from_plain, to_plain

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from saewidgets.features import FeatureIndex
    from saewidgets.sae import SAE


class Edits(traitlets.TraitType[Any, Any]):
    """A mapping of feature to edit. Read-only: assign another one (`panel.edits = panel.edits | {7: sw.Add(2)}`)."""

    info_text = "a dict of feature to sw.Clamp(value), sw.Add(value), sw.Scale(factor) or sw.Ablate()"

    def validate(self, obj: Any, value: Any) -> Mapping[int, Edit]:
        if not isinstance(value, Mapping):
            raise traitlets.TraitError(f"edits is {self.info_text}, got {type(value).__name__}.")
        for feature, edit in value.items():
            if type(edit) not in MODES.values():
                raise traitlets.TraitError(f"edits is {self.info_text}; for feature {feature!r} it got {edit!r}.")
            if isinstance(feature, bool) or not hasattr(feature, "__index__"):
                raise traitlets.TraitError(f"A feature is a whole number, got {feature!r}.")
        return MappingProxyType({int(feature): edit for feature, edit in value.items()})


def _from_browser(plain: Plain, _widget: object) -> dict[int, Edit]:
    try:
        return from_plain(plain)
    except ValueError as error:
        raise traitlets.TraitError(sentence(error)) from error


class SteeringPanel(SAEWidget):
    """Sliders for the edits of features; the model's own text beside the steered one, with the same random numbers.

    Args:
        sae, model: The model that is steered, through this SAE's features.
        prompt: What both texts begin with.
        edits: Feature id to `Clamp`, `Add`, `Scale` or `Ablate`. Moves with the sliders, and moves them.
        index: Gives the features' top tokens, and their maximum as the slider's unit.
        n_tokens, temperature, seed: Of the texts; temperature 0 takes the likeliest token.
        hook_name: Where the SAE belongs, if its metadata does not say.

    Raises:
        ValueError: the hook does not exist, or the SAE's d_in does not fit it.
        traitlets.TraitError: a feature that the SAE does not have, or values out of range.
        TypeError: an unknown option, by name.
    """

    bundle_name: ClassVar[str] = "steering_panel"

    prompt = Text("", help="What the texts begin with.").tag(sync=True)
    edits = Edits(MappingProxyType({}), help="Feature -> edit.").tag(
        sync=True, to_json=lambda edits, _widget: to_plain(edits), from_json=_from_browser
    )
    n_tokens = traitlets.Int(40, help="Length of the texts, in tokens.").tag(sync=True)
    temperature = traitlets.Float(0.7, help="0 takes the likeliest token.").tag(sync=True)
    seed = traitlets.Int(0, help="Of the random numbers that all texts share.").tag(sync=True)

    _view: SteeringView

    def __init__(
        self,
        sae: SAE,
        model: TransformerBridge,
        prompt: str = "Once upon a time",
        edits: Mapping[int, Edit] | None = None,
        *,
        index: FeatureIndex | None = None,
        n_tokens: int = 40,
        temperature: float = 0.7,
        seed: int = 0,
        hook_name: str | None = None,
        **options: Any,
    ) -> None:
        self._d_sae = sae.cfg.d_sae
        options |= {"n_tokens": n_tokens, "temperature": temperature, "seed": seed}
        super().__init__(SteeringView(sae, model, index, hook_name), prompt=prompt, edits=edits or {}, **options)

    @traitlets.validate("edits")
    def _features_exist(self, proposal: dict[str, Any]) -> Mapping[int, Edit]:
        for feature in proposal["value"]:
            feature_in_range(feature, self._d_sae)
        edits: Mapping[int, Edit] = proposal["value"]
        return edits

    @traitlets.validate("n_tokens")
    def _some_tokens(self, proposal: dict[str, Any]) -> int:
        if not 1 <= proposal["value"] <= self._view.model.cfg.n_ctx:
            raise traitlets.TraitError(
                f"n_tokens={proposal['value']} must be from 1 to the model's context of {self._view.model.cfg.n_ctx}."
            )
        return int(proposal["value"])

    @traitlets.validate("temperature")
    def _not_negative(self, proposal: dict[str, Any]) -> float:
        if not 0 <= proposal["value"] < math.inf:
            raise traitlets.TraitError(f"temperature={proposal['value']} must be 0 (the likeliest token) or more.")
        return float(proposal["value"])

    @traitlets.validate("seed")
    def _a_seed(self, proposal: dict[str, Any]) -> int:
        if not 0 <= proposal["value"] < 2**31:
            raise traitlets.TraitError(f"seed={proposal['value']} must be a whole number from 0 to {2**31 - 1}.")
        return int(proposal["value"])

    @property
    def default_text(self) -> str:
        """What the model writes after the prompt by itself. Written when it is asked for; the same seed, the same text.

        Raises:
            ValueError: the prompt is empty or too long.
        """
        return self._text("default_text", self._of_a_text())

    @property
    def steered_text(self) -> str:
        """What it writes under `edits`: word for word what the screen shows."""
        return self._text("steered_text", self._of_a_text(to_plain(self.edits)))

    @property
    def control_text(self) -> str:
        """What it writes when the same changes go along random directions of equal norm."""
        return self._text("control_text", self._of_a_text(to_plain(self.edits)))

    def _text(self, method: str, params: Params) -> str:
        *_, (result, _buffers) = self.answer(method, params)
        return str(result["text"])

    def _of_a_text(self, edits: Plain | None = None) -> Params:
        steered = {} if edits is None else {"edits": edits}
        given = {"prompt": self.prompt, "n_tokens": self.n_tokens, "temperature": self.temperature, "seed": self.seed}
        return given | steered

    def _strengths(self) -> dict[int, list[float]]:
        return {feature: self._view.strengths(feature, edit) for feature, edit in self.edits.items()}

    def recorded_requests(self) -> Iterable[tuple[str, Params]]:
        now = to_plain(self.edits)
        yield "features", {"features": list(self.edits)}
        variants = [now] + [
            [{**row, "value": value} if row["feature"] == feature else row for row in now]
            for feature, values in self._strengths().items()
            for value in values
            if {"feature": feature, "value": value} not in [{k: row[k] for k in ("feature", "value")} for row in now]
        ]
        yield "default_text", self._of_a_text()
        for edits in variants:
            yield "next_token", {"prompt": self.prompt, "edits": edits, "seed": self.seed}
            yield "steered_text", self._of_a_text(edits)
            if edits:
                yield "control_text", self._of_a_text(edits)

    def snapshot(self) -> dict[str, Any]:
        taken = super().snapshot()
        taken["state"]["_recorded"] = {str(feature): values for feature, values in self._strengths().items()}
        return taken

    def shown(self) -> dict[str, Any]:
        return {"prompt": self.prompt, "edits": dict(self.edits)}
