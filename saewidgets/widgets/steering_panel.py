"""SteeringPanel: sliders for features, and what they do to the next token and to the text."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import traitlets

from saewidgets.activations import check_fits, harvest
from saewidgets.interventions import (
    Ablate,
    Add,
    Clamp,
    Edit,
    NextToken,
    Scale,
    continuations,
    edit_hooks,
    random_direction_edit,
)
from saewidgets.models import share, to_ids, vocabulary_of
from saewidgets.widgets._base import Answer, Params, SAEWidget, feature_in_range, sentence

if TYPE_CHECKING:
    import pandas as pd
    from transformer_lens.model_bridge import TransformerBridge

    from saewidgets.features import FeatureIndex
    from saewidgets.sae import SAE

MODES: dict[str, Any] = {"clamp": Clamp, "add": Add, "scale": Scale, "ablate": Ablate}
"""What a screen calls the kinds of edit."""

CHANGES = 10
"""Next tokens shown, those that change most."""

PRINTED = 0.0005
"""A smaller change of a probability is not seen in what is printed."""

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
"""The strengths of each edit that an exported page carries, in units of the feature's maximum."""

PROBE = "Once upon a time there was a little girl. She went to the park with her mother and played with a ball."
"""Text on which the length of x is measured, for sliders of features whose maximum is not known."""

PART_SECONDS = 0.03
"""Between two parts of a text that is being written, at least."""

Plain = list[dict[str, Any]]
"""Edits as JSON: a list of feature, mode and value (None where the mode has none), in the order shown."""


def to_plain(edits: Mapping[int, Edit]) -> Plain:
    """Edits as JSON."""
    names = {kind: name for name, kind in MODES.items()}
    return [
        {"feature": int(feature), "mode": names[type(edit)], "value": next(iter(vars(edit).values()), None)}
        for feature, edit in edits.items()
    ]


def from_plain(plain: Plain) -> dict[int, Edit]:
    """Edits from JSON.

    Raises:
        ValueError: an unknown mode, a value that is no finite number, or a feature that is edited twice.
    """
    edits: dict[int, Edit] = {}
    for row in plain:
        feature, mode, value = int(row["feature"]), row["mode"], row["value"]
        if mode not in MODES:
            raise ValueError(f"There is no mode {mode!r}; an edit is one of {', '.join(MODES)}.")
        if feature in edits:
            raise ValueError(f"Feature {feature} is edited already: change that edit, or remove it first.")
        try:
            edits[feature] = MODES[mode]() if mode == "ablate" else MODES[mode](value)
        except TypeError as error:  # no number
            raise ValueError(str(error)) from error
    return edits


class SteeringView:
    """What a steering panel shows, computed from a model, an SAE and (for names and scales) an index. Plain Python.

    Raises:
        ValueError: the hook does not exist, or the SAE's d_in does not fit it.
    """

    requests: ClassVar[tuple[str, ...]] = (
        "features",
        "find",
        "next_token",
        "default_text",
        "steered_text",
        "control_text",
    )

    def __init__(
        self, sae: SAE, model: TransformerBridge, index: FeatureIndex | None = None, hook_name: str | None = None
    ) -> None:
        self.site = check_fits(sae, model, hook_name)
        self.sae = sae.clone()
        self.model = share(model)
        self.index = index
        self._asking = threading.Lock()
        self._prompt: tuple[str, NextToken] | None = None

    @cached_property
    def _known(self) -> pd.DataFrame | None:
        return None if self.index is None else self.index.table().set_index("feature")

    @cached_property
    def reach(self) -> float:
        """The mean length of x at the hook on a plain sentence: as far as a feature alone could reach."""
        x = harvest(self.model, to_ids(self.model, PROBE), self.site)[0, 1:].float()
        return float(x.norm(dim=-1).mean())

    def features(self, features: list[int]) -> Answer:
        """What is known of some features, and of the place they write to.

        Returns:
            `d_sae`, `hook_name`, `indexed`, `reach`, and `features`: id -> top_tokens, density, max, and quantiles
            (of its activations; pairs of share and value) where the index knows them.

        Raises:
            ValueError: a feature id out of range.
        """
        self.sae.check_features(torch.tensor(features, dtype=torch.long))
        result = {
            "d_sae": self.sae.cfg.d_sae,
            "hook_name": self.site.hook_name,
            "indexed": self.index is not None,
            "reach": self.reach,
            "features": {str(feature): self._facts(feature) for feature in features},
        }
        return result, []

    def _facts(self, feature: int) -> dict[str, Any]:
        if self.index is None or self._known is None:
            return {}
        row = self._known.loc[feature]
        shares = (0.5, 0.9, 0.99)
        return {
            "top_tokens": str(row.top_tokens),
            "density": float(row.density),
            "max": float(row["max"]),
            "quantiles": list(zip(shares, self.index.quantiles(feature, shares), strict=True)),
        }

    def find(self, text: str) -> Answer:
        """Features to choose from: an id, or with an index those that fire on a token.

        Raises:
            ValueError: no such id, nothing found, or a word without an index to look it up in.
        """
        number = text.strip().removeprefix("#")
        if number.isascii() and number.isdigit():
            found = [int(number)]
            self.sae.check_features(torch.tensor(found))
        elif self.index is None:
            raise ValueError(f"{text!r} is no feature id. To search by token give the panel an index: index=...")
        else:
            table = self.index.search(text, n=8)
            found = [int(feature) for feature in table["feature"]]
            if not found:
                raise ValueError(f"No feature is active on a token that says {text!r} in the index.")
        return {"found": [{"feature": feature, **self._facts(feature)} for feature in found]}, []

    def next_token(self, prompt: str, edits: Plain, seed: int) -> Answer:
        """What edits do to the token after the prompt. Only the layers after the hook run.

        Returns:
            `tokens` (the ones whose probability changes most; where none changes, the likeliest), `kl` and
            `kl_control` in nats (KL(default || steered) of the edits, and of the same change along random directions
            of equal norm), and the buffers float32 before [tokens], after [tokens], f [edits] (activations on the
            prompt's last token before the edit).

        Raises:
            ValueError: the prompt is empty or too long, a feature id is out of range, an edit is none.
        """
        given = from_plain(edits)
        with self._asking:
            if self._prompt is None or self._prompt[0] != prompt:
                self._prompt = (prompt, NextToken(self.model, self.sae, prompt, self.site.hook_name))
            ask = self._prompt[1]
        before, after = ask.baseline, ask.probabilities(given)
        change = (after - before).abs()
        ranked = change if float(change.max()) >= PRINTED else before
        most = ranked.topk(min(CHANGES, len(before))).indices
        f = ask.activations(list(given))[-1] if given else torch.zeros(0)
        control = random_direction_edit(self.sae, None, given, seed)
        result = {
            "tokens": self._display(most.tolist()),
            "kl": ask.kl(given) if given else 0.0,
            "kl_control": ask.kl(control) if given else 0.0,
        }
        return result, [part.numpy().astype("<f4").tobytes() for part in (before[most], after[most], f)]

    def default_text(self, prompt: str, n_tokens: int, temperature: float, seed: int) -> Iterator[Answer]:
        """The text that the model writes after the prompt by itself, as it grows. See `_written`."""
        return self._written(prompt, {}, n_tokens, temperature, seed)

    def steered_text(self, prompt: str, edits: Plain, n_tokens: int, temperature: float, seed: int) -> Iterator[Answer]:
        """The text that it writes under edits, with the same random numbers. See `_written`."""
        return self._written(prompt, from_plain(edits), n_tokens, temperature, seed)

    def control_text(self, prompt: str, edits: Plain, n_tokens: int, temperature: float, seed: int) -> Iterator[Answer]:
        """The text that it writes when the same changes go along random directions of equal norm. See `_written`."""
        control = random_direction_edit(self.sae, None, from_plain(edits), seed)
        return self._written(prompt, control, n_tokens, temperature, seed)

    def _written(
        self, prompt: str, edits: Mapping[int, Edit], n_tokens: int, temperature: float, seed: int
    ) -> Iterator[Answer]:
        """Yields `prompt` and `tokens` (as they are shown), `ids` (of `tokens`), `text`, and `ended` (why it is no
        longer than it is; None while it grows or when it has all its n_tokens)."""
        start = to_ids(self.model, prompt, prepend_bos=self.sae.metadata.prepend_bos)
        hooks = edit_hooks(self.sae, self.model, edits, self.site.hook_name)
        shown = self._display(start[0].tolist())
        ids: list[int] = []

        def so_far(ended: str | None = None) -> Answer:
            text = vocabulary_of(self.model).text(ids)
            return {"prompt": shown, "tokens": self._display(ids), "ids": list(ids), "text": text, "ended": ended}, []

        sent = time.monotonic()
        yield so_far()
        for token in continuations(self.model, start, hooks, n_tokens, temperature, seed):
            ids.append(token)
            if time.monotonic() - sent >= PART_SECONDS:
                sent = time.monotonic()
                yield so_far()
        full = len(start[0]) + len(ids) >= int(self.model.cfg.n_ctx)
        yield so_far(None if len(ids) >= n_tokens else "the model's context is full" if full else "the model ended it")

    def _display(self, ids: list[int]) -> list[dict[str, Any]]:
        shown = vocabulary_of(self.model).display(ids)
        return [{"text": token.text, "special": token.special, "hex": token.hex} for token in shown]

    def strengths(self, feature: int, edit: Edit) -> list[float]:
        """The values of an edit that an exported page carries: steps of the feature's maximum, and its own."""
        value: float | None = next(iter(vars(edit).values()), None)
        if value is None:
            return []
        if isinstance(edit, Scale):
            unit = max(abs(value), 1.0)
        else:
            unit = math.copysign(float(self._facts(feature).get("max") or abs(value) or self.reach), value)
        return sorted({value, *(float(f"{unit * strength:.3g}") for strength in STRENGTHS)})


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

    prompt = traitlets.Unicode("", help="What the texts begin with.").tag(sync=True)
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
        try:
            to_ids(self._view.model, self.prompt)
        except ValueError:
            return  # the page says that these were not recorded, as the live panel says why there are none
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
        yield "control_text", self._of_a_text(now)

    def snapshot(self) -> dict[str, Any]:
        taken = super().snapshot()
        taken["state"]["_recorded"] = {str(feature): values for feature, values in self._strengths().items()}
        return taken

    def shown(self) -> dict[str, Any]:
        return {"prompt": self.prompt, "edits": dict(self.edits)}
