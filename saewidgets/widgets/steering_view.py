"""What a steering panel shows, computed from the model: next tokens and texts under edits. Plain Python."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from saewidgets.activations import harvest
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
from saewidgets.models import to_ids, vocabulary_of
from saewidgets.widgets._base import Answer, source_line, token_as_json
from saewidgets.widgets._on_model import ModelView

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


class SteeringView(ModelView):
    """What a steering panel shows. Plain Python; an index gives the names and the scales of the sliders."""

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
        super().__init__(sae, model, index, hook_name)
        self._asking = threading.Lock()
        self._prompt: tuple[str, NextToken] | None = None

    @cached_property
    def _known(self) -> pd.DataFrame | None:
        return None if self.index is None else self.index.table().set_index("feature")

    @cached_property
    def reach(self) -> float:
        """The activation that moves x by its own length: mean ||x|| on a plain sentence / the median ||W_dec row||."""
        ids = to_ids(self.model, PROBE, prepend_bos=self.sae.metadata.prepend_bos)
        kept = [at for at in range(ids.shape[1]) if at not in self.sae.metadata.excluded_positions]
        x = harvest(self.model, ids, self.site)[0, kept].float()
        return float(x.norm(dim=-1).mean() / self.sae.W_dec.float().norm(dim=-1).median())

    def features(self, features: list[int]) -> Answer:
        """What is known of some features, and of the place they write to.

        Returns:
            `d_sae`, `hook_name`, `source` (which SAE it is, in a line), `indexed`, `reach`, and `features`: id ->
            top_tokens, density, max, and quantiles (of its activations; pairs of share and value) where the index
            knows them.

        Raises:
            ValueError: a feature id out of range.
        """
        self.sae.check_features(torch.tensor(features, dtype=torch.long))
        result = {
            "d_sae": self.sae.cfg.d_sae,
            "hook_name": self.site.hook_name,
            "source": source_line(
                self.sae.cfg.architecture, self.site.hook_name, self.sae.metadata.extra.get("step")
            ),
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
        return [token_as_json(token) for token in vocabulary_of(self.model).display(ids)]

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
