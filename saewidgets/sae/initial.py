"""The random directions that an SAE begins with."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor
from torch.nn import functional

from saewidgets.sae.config import SAEConfig

BLOCK = 1 << 14
"""Features drawn from one generator. Whoever needs only some features draws only the blocks that hold them."""


def unit_rows(cfg: SAEConfig, first: int = 0, last: int | None = None) -> tuple[Tensor, Tensor | None]:
    """Unit vectors for the features from `first` to before `last` (None: d_sae), drawn from `cfg.seed`, on the CPU.

    Returns: directions that are read, [n, d_in], and those that a transcoder writes, [n, d_out]. A feature's are the
    same, whichever others are asked for along with it.
    """
    last = cfg.d_sae if last is None else last
    widths = [cfg.d_in] if cfg.d_out is None else [cfg.d_in, cfg.d_out]
    wanted = [torch.empty(last - first, width, dtype=getattr(torch, cfg.dtype)) for width in widths]
    for begin in range(first - first % BLOCK, last, BLOCK):
        generator = _generator(cfg, begin // BLOCK)
        size = min(BLOCK, cfg.d_sae - begin)
        low, high = max(first, begin), min(last, begin + size)
        for rows in wanted:
            drawn = torch.randn(size, rows.shape[1], generator=generator, dtype=rows.dtype)
            rows[low - first : high - first] = functional.normalize(drawn[low - begin : high - begin], dim=1)
    return wanted[0], wanted[1] if len(wanted) > 1 else None


def generator_of_the_rest(cfg: SAEConfig) -> torch.Generator:
    """What an architecture draws other weights from."""
    return _generator(cfg, -1)


def _generator(cfg: SAEConfig, block: int) -> torch.Generator:
    """That of a block: the first has the SAE's own seed."""
    seed = cfg.seed
    if block != 0:
        seed = int.from_bytes(hashlib.sha256(f"{seed} {block}".encode()).digest()[:8], "little")
    return torch.Generator().manual_seed(seed)
