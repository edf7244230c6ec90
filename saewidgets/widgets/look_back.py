"""Looking back at a run: a prompt, and a feature's strongest examples, as the SAE of each snapshot has them."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import torch

from saewidgets.activations import check_fits, harvest, pack
from saewidgets.models import share, to_ids, vocabulary_of
from saewidgets.sae import split_signs
from saewidgets.sae.architectures import get_architecture
from saewidgets.widgets._base import Answer, feature_in_range, token_as_json
from saewidgets.widgets._examples import packed

if TYPE_CHECKING:
    import pandas as pd
    from transformer_lens.model_bridge import TransformerBridge

    from saewidgets.activations.sources import Texts
    from saewidgets.features import TextSample
    from saewidgets.sae import SAE, SAEConfig, SAEMetadata

SAMPLE = 20_000
"""Tokens that a feature's strongest examples are looked up in."""
EXAMPLES = 8
"""Examples of a snapshot."""
WINDOW = 32
"""Tokens on each side of a peak."""
PATIENCE = 0.3
"""Seconds after which what is found so far is shown."""
KEPT = 512
"""Pairs of a snapshot and a feature whose examples are kept: 40 kB each (measured), 20 MB together."""
SAES_KEPT = 256 << 20
"""Bytes of the snapshots' SAEs that are kept: all 20 of 288 x 2,304 (106 MB), or 2 of 768 x 16,384."""


class Past(Protocol):
    """What can be looked back at: a run, or one SAE of a sweep."""

    @property
    def cfg(self) -> SAEConfig: ...
    @property
    def metadata(self) -> SAEMetadata: ...
    @property
    def acts(self) -> Any: ...
    @property
    def sae(self) -> SAE: ...
    @property
    def snapshots(self) -> list[int]: ...
    def sae_at(self, step: int) -> SAE: ...


class LookBack:
    """What the snapshots of a run make of some text. Plain Python.

    Args:
        run: The run, or one SAE of a sweep; it may be at any point.
        model: The bridge that the activations come from; None: the one that the run's stream reads, if it has one that
            reads text.
        texts: What a feature's examples are looked up in, up to SAMPLE tokens; None: what the run's stream holds out,
            and then the first of what it trains on.

    Raises:
        ValueError: the model has no such hook, or not of this size; the texts are empty; the stream's text is of
            another vocabulary than the model's, and no other is given.
        TypeError: a single string, or something else that is no list of texts.
    """

    def __init__(self, run: Past, model: TransformerBridge | None, texts: Texts | None) -> None:
        self.run = run
        given = model if model is not None else _own_model(run)
        self.model: Any = None if given is None else share(given)
        if self.model is not None:
            self.site = check_fits(run.sae, self.model)
        self._sample = self._sample_of(texts)
        self._begin()

    def at(self, run: Past) -> LookBack:
        """The same text, read once, looked back at with another SAE of the same hook."""
        other = copy.copy(self)
        other.run = run
        other._begin()
        return other

    def _begin(self) -> None:
        run = self.run
        self.two_sided = two_sided(run.cfg)
        """Whether the run's SAE has signed codes. It is looked back at with a feature for each sign, see `sae_at`."""
        self.d_sae = run.cfg.d_sae * (2 if self.two_sided else 1)
        """Features that are looked back at."""
        self._saes: dict[int, SAE] = {}
        self.looked_up = False
        """Whether examples were asked for: a page without a kernel then carries them."""
        # a snapshot does not change, so neither does what a feature fires on there
        self._examples_at = lru_cache(maxsize=KEPT)(self._find)

    @property
    def n_sampled(self) -> int | None:
        """Tokens that examples are looked up in; None where there are none."""
        return None if self._sample is None else self._sample.n_tokens

    def _sample_of(self, texts: Texts | None) -> TextSample | None:
        if self.model is None:
            return None
        metadata = self.run.metadata
        if texts is not None:
            size = metadata.context_size or min(128, int(self.model.cfg.n_ctx))
            contexts = pack(self.model, texts, size, metadata.prepend_bos, max_tokens=SAMPLE)
        elif hasattr(self.run.acts, "excerpt"):
            _check_vocabulary(self.run, self.model)
            contexts = self.run.acts.excerpt(SAMPLE)
        else:
            return None
        if not len(contexts):
            return None
        from saewidgets.features import TextSample  # brings DuckDB, which a run without a model does without

        return TextSample(self.model, contexts, self.site, metadata.excluded_positions)

    def sae_at(self, step: int) -> SAE:
        """The SAE of a snapshot as it is looked back at: `run.sae_at`, or, if `two_sided`, `split_signs` of it.

        There d_sae + i is the negative side of feature i, which would else count as silence.

        Raises ValueError for a step that is not one of the run's snapshots.
        """
        kept = self._saes.get(step)
        if kept is not None:
            return kept
        sae = self.run.sae_at(step)
        sae = split_signs(sae) if self.two_sided else sae
        size = sum(tensor.nbytes for tensor in sae.state_dict().values())
        # all steps are asked for in turn, so one that is given up for another would be missed before it is used again
        if size * (len(self._saes) + 1) <= SAES_KEPT:
            self._saes[step] = sae
        return sae

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
            raise ValueError("This monitor has no model to read a prompt with. Make it with one: model=model.")
        if not steps:
            raise ValueError("The run has no snapshot yet to read the prompt with.")
        feature_in_range(feature, self.d_sae)
        metadata = self.run.metadata
        ids = to_ids(self.model, prompt, prepend_bos=metadata.prepend_bos)
        x = harvest(self.model, ids, self.site)[0].float().cpu()
        values: list[torch.Tensor] = []
        strongest: list[torch.Tensor] = []
        for step in sorted(steps, reverse=True):  # the last one first: it may have to choose the feature
            sae = self.sae_at(step)
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
        """Where a feature is most active, at each of some snapshots of the run. A growing answer.

        The first time the text is read too, which takes some seconds; then a snapshot takes what
        `TextSample` says, and its SAE, where it is not kept, has to be made of half-precision weights.

        Returns:
            `feature`, `n_tokens` (in which is looked), `read` (the share of them that is read), `steps` (those done so
            far, in order), `counts` (examples of each), and what `FeatureDashboardView.examples` says of all of these
            one after the other, with its buffers.

        Raises:
            ValueError: there is no text to look in, or a step is not one of the run's snapshots.
            traitlets.TraitError: there is no such feature.
        """
        if self._sample is None:
            raise ValueError(
                "This monitor has no text to look for examples in. Make it with some: model=model, texts=texts."
            )
        feature_in_range(feature, self.d_sae)
        self.looked_up = True
        found: dict[int, pd.DataFrame] = {}
        for read in self._sample.read():
            yield self._told(self._sample, feature, found, read)
        told = time.monotonic()
        for step in sorted(steps, reverse=True):  # the last one first: there the feature is most itself
            found[step] = self._examples_at(self._sample, step, feature)
            if time.monotonic() - told > PATIENCE:
                yield self._told(self._sample, feature, found)
                told = time.monotonic()
        yield self._told(self._sample, feature, found)

    def _find(self, sample: TextSample, step: int, feature: int) -> pd.DataFrame:
        return sample.examples(self.sae_at(step), feature, n=EXAMPLES, window=WINDOW)

    def _told(self, sample: TextSample, feature: int, found: dict[int, pd.DataFrame], read: float = 1.0) -> Answer:
        steps = sorted(found)
        result, buffers = packed([found[step] for step in steps], vocabulary_of(self.model).display)
        counts = [len(found[step]) for step in steps]
        about = {"feature": feature, "n_tokens": sample.n_tokens, "read": read, "steps": steps, "counts": counts}
        return {**about, **result}, buffers


def two_sided(cfg: SAEConfig) -> bool:
    """Whether codes have signs, so that there are two things to look at for each feature."""
    return get_architecture(cfg.architecture).without_signs(cfg) is not None


def _check_vocabulary(run: Past, model: Any) -> None:
    """Raise ValueError unless the token ids of the run's stream are those of `model`."""
    own = getattr(run.acts, "model", None)
    if own is not None and share(own) is model:
        return
    read_by = getattr(run.acts, "metadata", run.metadata).model_name
    try:
        same = vocabulary_of(share(own)).same_as(vocabulary_of(model))
    except (AttributeError, TypeError, ValueError):  # a cache that was opened without its model, or no bridge
        same = read_by is not None and read_by == model.cfg.model_name
    if not same:
        raise ValueError(
            f"The run's text is kept as token ids of {read_by or 'a model without a name'}, and "
            f"{model.cfg.model_name!r} may have another vocabulary. Pass the text to look for examples in: "
            "texts=texts."
        )


def _own_model(run: Past) -> Any:
    """The model of the run's stream; None where it has none, or one that cannot read text for this SAE."""
    model = getattr(run.acts, "model", None)
    if model is None:
        return None
    try:
        check_fits(run.sae, share(model))
        vocabulary_of(model)
    except (TypeError, ValueError):  # a stream of someone's own may call anything its model
        return None
    return model
