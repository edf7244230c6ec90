"""The sparse autoencoder."""

from __future__ import annotations

import hashlib
import json
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from saewidgets.sae.architectures import get_architecture
from saewidgets.sae.config import SAEConfig, SAEMetadata
from saewidgets.sae.kernels import decode


class SAE(nn.Module):
    """A sparse autoencoder: a dictionary of d_sae directions, few of which explain each vector.

        f    = encoder(x)           [..., d_sae], f >= 0, mostly zero; the rule is the architecture's
        xhat = f W_dec + b_dec      [..., d_in]

    For `topk`: f = relu(TopK_k((x - b_dec) W_enc + b_enc)), see `saewidgets.sae.architectures.topk`.

    In training the input is scaled, x~ = s x with s = `input_scale` = sqrt(d_in) / E||x||, and the weights belong
    to x~: f = encoder(s x) and xhat = (f W_dec + b_dec) / s. So f has the same size whatever the model's: a clear
    activation is some units strong. `fold_` writes s into the weights (as sae-lens does): the same f, the same xhat,
    s = 1, and decoder rows of length 1 / s.

    Initial weights: rows of W_dec are random unit vectors drawn from `cfg.seed`, W_enc = W_dec^T, biases 0.
    """

    input_scale: Tensor

    def __init__(self, cfg: SAEConfig, metadata: SAEMetadata | None = None, device: str | torch.device = "cpu") -> None:
        super().__init__()
        if not isinstance(cfg, SAEConfig):
            raise TypeError(f"SAE needs an SAEConfig, got {type(cfg).__name__}: SAE(SAEConfig(d_in=.., d_sae=..)).")
        dtype = getattr(torch, cfg.dtype)
        generator = torch.Generator().manual_seed(cfg.seed)
        rows = torch.randn(cfg.d_sae, cfg.d_in, generator=generator, dtype=dtype).to(device)
        rows = nn.functional.normalize(rows, dim=1)
        self._cfg = cfg
        self.metadata = metadata or SAEMetadata()
        self.W_dec = nn.Parameter(rows)
        # [d_in, d_sae], in memory [d_sae, d_in]: the weights of a feature lie together, as its gradient does
        self.W_enc = nn.Parameter(rows.clone().t())
        self.b_enc = nn.Parameter(torch.zeros(cfg.d_sae, dtype=dtype, device=device))
        self.b_dec = nn.Parameter(torch.zeros(cfg.d_in, dtype=dtype, device=device))
        self.register_buffer("input_scale", torch.ones((), dtype=dtype, device=device))

    @property
    def cfg(self) -> SAEConfig:
        """The frozen config that the SAE was made from."""
        return self._cfg

    @property
    def device(self) -> torch.device:
        return self.W_dec.device

    @property
    def dtype(self) -> torch.dtype:
        return self.W_dec.dtype

    def encode(self, x: Tensor) -> Tensor:
        """Vectors [..., d_in] to feature activations [..., d_sae]."""
        values, indices = self.encode_sparse(x)
        f = values.new_zeros(values.shape[0], self.cfg.d_sae).scatter(1, indices, values)
        return f.view(*x.shape[:-1], self.cfg.d_sae)

    def encode_sparse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors [..., d_in] to (values [n, k], indices [n, k]), n = product of the leading sizes.

        The active features of each vector in no set order, values >= 0 (0 where fewer than k are positive),
        indices int64. Never holds more than a chunk of the preactivations.
        """
        return get_architecture(self.cfg.architecture).encode_sparse(self, self._flat(x))

    def encode_features(self, x: Tensor, features: Tensor) -> Tensor:
        """Activations of a few features, [..., len(features)]: equal to encode(x)[..., features]."""
        features = torch.as_tensor(features, dtype=torch.int64, device=self.device).reshape(-1)
        self.check_features(features)
        values, indices = self.encode_sparse(x)
        wanted, place = torch.unique(features, return_inverse=True)
        column = torch.full((self.cfg.d_sae,), len(wanted), device=self.device).index_copy_(
            0, wanted, torch.arange(len(wanted), device=self.device)
        )
        # all other features share one last column, which is dropped
        f = values.new_zeros(values.shape[0], len(wanted) + 1).scatter(1, column[indices], values)
        return f[:, place].view(*x.shape[:-1], len(features))

    def decode(self, f: Tensor) -> Tensor:
        """Feature activations [..., d_sae] to vectors [..., d_in]."""
        return self._x_space(f.to(self.device, self.dtype) @ self.W_dec + self.b_dec)

    def decode_sparse(self, values: Tensor, indices: Tensor) -> Tensor:
        """What `encode_sparse` gives, [n, k] twice, to vectors [n, d_in]."""
        return self._x_space(decode(values, indices, self.W_dec, self.b_dec))

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction of vectors [..., d_in]."""
        return self.decode_sparse(*self.encode_sparse(x)).view(x.shape)

    def check_features(self, features: Tensor) -> None:
        """Raise ValueError if a feature id is not one of this SAE's."""
        if features.numel() and not (0 <= int(features.min()) and int(features.max()) < self.cfg.d_sae):
            bad = next(int(f) for f in features.reshape(-1) if not 0 <= int(f) < self.cfg.d_sae)
            last = self.cfg.d_sae - 1
            raise ValueError(f"There is no feature {bad}: this SAE's features are 0 to {last} (d_sae - 1).")

    @torch.no_grad()
    def fold_(self) -> SAE:
        """Write `input_scale` into the weights: the same f and the same xhat, with input_scale 1."""
        self.W_enc.mul_(self.input_scale)
        self.W_dec.div_(self.input_scale)
        self.b_dec.div_(self.input_scale)
        self.input_scale.fill_(1.0)
        return self

    def clone(self) -> SAE:
        """A frozen copy, folded. Taken between two training steps if the SAE is being trained."""
        with turn_of(self):
            copy = SAE(self.cfg, self.metadata, self.device)
            copy.load_state_dict(self.state_dict())
        return copy.requires_grad_(False).eval().fold_()

    def fingerprint(self) -> str:
        """sha256, in hex, of the config and the weights."""
        digest = hashlib.sha256(json.dumps(self.cfg.to_dict(), sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def extra_repr(self) -> str:
        cfg = self.cfg
        shape = f"{cfg.architecture}, d_in={cfg.d_in}, d_sae={cfg.d_sae}, k={cfg.k}"
        return f"{shape}, hook_name={self.metadata.hook_name!r}"

    def __repr__(self) -> str:
        return f"SAE({self.extra_repr()})"

    def _x_space(self, scaled: Tensor) -> Tensor:
        """From the scaled input's units to those of x."""
        return scaled / self.input_scale

    def _flat(self, x: Tensor) -> Tensor:
        if x.shape[-1:] != (self.cfg.d_in,):
            raise ValueError(
                f"This SAE reads vectors of size {self.cfg.d_in} (d_in), but got shape {tuple(x.shape)}. "
                "Check that the hook is the one it was trained on."
            )
        return x.reshape(-1, self.cfg.d_in).to(self.device, self.dtype)


class _Turns:
    """A lock that a steady holder cannot keep from others: whoever waits is next."""

    def __init__(self) -> None:
        self._queue = threading.Lock()
        self._weights = threading.Lock()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        # a reader waits for the weights while holding the queue, so that the trainer cannot overtake it
        with self._queue:
            self._weights.acquire()
        try:
            yield
        finally:
            self._weights.release()


_turns: weakref.WeakKeyDictionary[SAE, _Turns] = weakref.WeakKeyDictionary()
_turns_lock = threading.Lock()


def turn_of(sae: SAE) -> Any:
    """Context in which nobody else writes (a training step) or copies this SAE's weights. Not re-entrant."""
    with _turns_lock:
        turns = _turns.setdefault(sae, _Turns())
    return turns()
