"""The scores of an SAE on a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from saewidgets.activations.contexts import Texts, asked, pack
from saewidgets.activations.hooks import check_fits, target_of
from saewidgets.activations.splice import recovered, splice_scores

if TYPE_CHECKING:
    from saewidgets.sae.sae import SAE

DENSE = 0.1
"""A feature that is active on a larger share of the tokens counts as dense."""


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Scores of an SAE over a whole set of tokens; positions that the SAE leaves out are not among them.

    Of a transcoder, x below is the target, the activation that it predicts and takes the place of.
    """

    l0: float
    """Active features per token."""
    explained_variance: float
    """1 - sum ||x - xhat||^2 / sum ||x - mean||^2, over the whole set."""
    kl: float
    """KL(clean || spliced) of the next-token distributions, nats per token."""
    dead_fraction: float
    """Share of the features that are silent on every one of these tokens."""
    dense_fraction: float
    """Share of the features that are active on more than a tenth of them."""
    n_tokens: int
    """Activation vectors that were scored."""
    ce_clean: float
    """The model's cross entropy, nats per token."""
    ce_spliced: float
    """The same with the reconstruction in place of the activation."""
    ce_zero: float
    """The same with zeros in place of the activation."""

    @property
    def ce_loss_recovered(self) -> float:
        """(zero - spliced) / (zero - clean): 1 is as good as the model itself, 0 as bad as zero ablation."""
        return recovered(self.ce_clean, self.ce_spliced, self.ce_zero)

    def __repr__(self) -> str:
        ce = f"cross entropy {self.ce_clean:.3g} clean, {self.ce_spliced:.3g} spliced, {self.ce_zero:.3g} zeroed"
        rows = [
            ("L0", f"{self.l0:.3g}", "active features per token"),
            ("explained variance", f"{self.explained_variance:.3g}", "of the whole set"),
            ("CE loss recovered", f"{self.ce_loss_recovered:.3g}", ce),
            ("KL", f"{self.kl:.3g}", "nats per token, clean to spliced"),
            ("dead features", f"{self.dead_fraction:.3g}", f"silent on all of these {self.n_tokens:,} tokens"),
            ("dense features", f"{self.dense_fraction:.3g}", f"active on more than {DENSE:.0%} of them"),
        ]
        lines = [f"  {name:<20}{number:>9}   {remark}" for name, number, remark in rows]
        return "\n".join([f"Evaluation on {self.n_tokens:,} tokens", *lines])


class _Tally:
    """Sums over vectors, in float64."""

    def __init__(self, d_in: int, d_sae: int) -> None:
        self.n = 0
        self.total = torch.zeros(d_in, dtype=torch.float64)
        self.squares = self.errors = 0.0
        self.fired = torch.zeros(d_sae, dtype=torch.long)

    def add(self, x: Tensor, reconstruction: Tensor, values: Tensor, indices: Tensor) -> None:
        x, reconstruction = x.cpu().double(), reconstruction.cpu().double()
        self.n += len(x)
        self.total += x.sum(0)
        self.squares += float(x.square().sum())
        self.errors += float((x - reconstruction).square().sum())
        active = indices[values != 0].cpu()  # a code may have signs
        self.fired += torch.bincount(active, minlength=len(self.fired))

    @property
    def variance(self) -> float:
        return self.squares - float(self.total.square().sum()) / self.n


def evaluate(
    sae: SAE,
    model: Any,
    texts: Texts,
    *,
    hook_name: str | None = None,
    target_hook_name: str | None = None,
    context_size: int | None = None,
    max_tokens: int = 50_000,
) -> Evaluation:
    """Score an SAE on texts that it was not trained on. Of an SAE in training, an atomic copy is scored.

    A transcoder reads one hook, and its prediction takes the activation's place at the other.

    Args:
        texts: A list of strings, of token id arrays, or a Hugging Face dataset.
        hook_name: Where the SAE belongs, if its metadata does not say; of a transcoder, what it reads.
        target_hook_name: What a transcoder predicts, if its metadata does not say.
        context_size: Tokens per context; the one the SAE was trained with by default.
        max_tokens: Stop after so many activation vectors.

    Raises:
        ValueError: an SAE that does not fit the model, or no text to score.
    """
    site, target = check_fits(sae, model, hook_name), target_of(sae, model, target_hook_name)
    sae = sae.clone()
    if max_tokens < 1:
        raise ValueError(f"max_tokens={max_tokens} must be at least 1.")
    size = context_size or sae.metadata.context_size or min(128, int(model.cfg.n_ctx))
    contexts = pack(model, texts, size, sae.metadata.prepend_bos)
    wanted = asked(contexts.mask, sae.metadata.excluded_positions)
    enough = max(1, int(torch.searchsorted(wanted.sum(1).cumsum(0), max_tokens, right=True)))
    contexts = contexts[:enough]
    tally = _Tally((target or site).d_in, sae.cfg.d_sae)
    splice = splice_scores(sae, model, contexts.tokens, contexts.mask, site, tally.add, target)
    fired = tally.fired.double() / tally.n
    return Evaluation(
        l0=float(fired.sum()),
        explained_variance=1.0 - tally.errors / tally.variance if tally.variance > 0 else float("nan"),
        kl=splice.kl,
        dead_fraction=float((fired == 0).double().mean()),
        dense_fraction=float((fired > DENSE).double().mean()),
        n_tokens=tally.n,
        ce_clean=splice.ce_clean,
        ce_spliced=splice.ce_spliced,
        ce_zero=splice.ce_zero,
    )


@torch.no_grad()
def random_decoder(sae: SAE, seed: int = 0) -> SAE:
    """A control: the same SAE, whose decoder rows are random directions as long as its own."""
    control = sae.clone()
    # not SAEConfig's seed: an untrained SAE's own rows are drawn from that
    generator = torch.Generator().manual_seed(0x5AE + seed)
    rows = torch.randn(control.W_dec.shape, generator=generator).to(control.W_dec)
    control.W_dec.copy_(nn.functional.normalize(rows, dim=1) * control.W_dec.norm(dim=1, keepdim=True))
    return control
