"""The sparse autoencoder."""

from __future__ import annotations

import functools
import hashlib
import json
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec

import torch
from torch import Tensor, nn

from saewidgets.sae.architectures import Architecture, get_architecture
from saewidgets.sae.config import SAEConfig, SAEMetadata
from saewidgets.sae.initial import generator_of_the_rest, unit_rows
from saewidgets.sae.kernels import Places, decode
from saewidgets.sae.normalize import BY_ITSELF, own_size

Given = ParamSpec("Given")


def refuses_config_options(init: Callable[Given, None]) -> Callable[Given, None]:
    """`SAE.__init__`, with a sentence for who gives it the options of a config, or nothing."""

    @functools.wraps(init)
    def __init__(*args: Given.args, **keywords: Given.kwargs) -> None:
        wrong = [f"{name}={value!r}" for name, value in keywords.items() if name not in ("cfg", "metadata", "device")]
        if wrong or (len(args) < 2 and "cfg" not in keywords):
            line = f"sw.SAEConfig({', '.join(wrong)})" if wrong else SAEConfig.EXAMPLE
            raise TypeError(f"SAE takes an SAEConfig, which holds its shape: sw.SAE({line}).")
        init(*args, **keywords)

    return __init__


class SAE(nn.Module):
    """A sparse autoencoder: a dictionary of d_sae directions, few of which explain each vector.

        f    = encoder(x)           [..., d_sae], mostly zero; the rule is the architecture's
        xhat = f W_dec + b_dec      [..., d_in], or [..., d_out] of a transcoder

    For `topk`: f = relu(TopK_k((x - b_dec) W_enc + b_enc)), see `saewidgets.sae.architectures`, which say what other
    weights an SAE has.

    In training the input is scaled, x~ = s x with s = `input_scale` = sqrt(d_in) / E||x||, and the weights belong
    to x~: f = encoder(s x) and xhat = (f W_dec + b_dec) / s. So f has the same size whatever the model's: a clear
    activation is some units strong. `fold_` writes s into the weights (as sae-lens does): the same f, the same xhat,
    s = 1, and decoder rows of length 1 / s. A transcoder has a scale for what it predicts too, `target_scale`.

    Where `cfg.normalize` brings each vector to size by itself, x~ = s (x - shift) / size with the vector's own shift
    and size, and xhat is brought back by them: `decode` then needs x.

    Initial weights: rows of W_dec are random unit vectors drawn from `cfg.seed`, W_enc = W_dec^T, biases 0.
    """

    input_scale: Tensor

    @refuses_config_options
    def __init__(self, cfg: SAEConfig, metadata: SAEMetadata | None = None, device: str | torch.device = "cpu") -> None:
        super().__init__()
        if not isinstance(cfg, SAEConfig):
            raise TypeError(f"SAE takes an SAEConfig, got {type(cfg).__name__}: sw.SAE({SAEConfig.EXAMPLE}).")
        dtype = getattr(torch, cfg.dtype)
        architecture = get_architecture(cfg.architecture)
        rows, written = unit_rows(cfg)
        rows = rows.mul_(architecture.decoder_norm).to(device)
        self._cfg = cfg
        self.metadata = metadata or SAEMetadata()
        d_out = cfg.d_out or cfg.d_in
        # a transcoder's output has nothing to do with the directions that it reads
        self.W_dec = nn.Parameter(rows if written is None else written.to(device))
        # [d_in, d_sae], in memory [d_sae, d_in]: the weights of a feature lie together, as its gradient does
        self.W_enc = nn.Parameter(rows.clone().t())
        self.b_enc = nn.Parameter(torch.zeros(cfg.d_sae, dtype=dtype, device=device))
        self.b_dec = nn.Parameter(torch.zeros(d_out, dtype=dtype, device=device))
        self.register_buffer("input_scale", torch.ones((), dtype=dtype, device=device))
        if architecture.predicts_target:
            self.register_buffer("target_scale", torch.ones((), dtype=dtype, device=device))
        for name, value in architecture.parameters(cfg, generator_of_the_rest(cfg)).items():
            self.register_parameter(name, nn.Parameter(value.to(device)))
        for name, value in architecture.buffers(cfg).items():
            self.register_buffer(name, value.to(device))

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

    @property
    def architecture(self) -> Architecture:
        """The rule that `cfg.architecture` names."""
        return get_architecture(self.cfg.architecture)

    @property
    def output_scale(self) -> Tensor:
        """The scale of what `decode` gives: that of the input, or a transcoder's `target_scale`."""
        return self.get_buffer("target_scale") if self.architecture.predicts_target else self.input_scale

    def encode(self, x: Tensor) -> Tensor:
        """Vectors [..., d_in] to feature activations [..., d_sae]."""
        return self.architecture.encode(self, self.scaled(x)).view(*x.shape[:-1], self.cfg.d_sae)

    def encode_sparse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors [..., d_in] to (values [n, m], indices [n, m]), n = product of the leading sizes.

        The active features of each vector in no set order, indices int64. m is k where the architecture has one, else
        the largest number of active features in these vectors; the rest is padded with value 0 (and index 0). Values
        are >= 0, but for the architectures with signed codes: abstopk, and dense where it is linear. Never holds more
        than a chunk of the preactivations.
        """
        return self.architecture.encode_sparse(self, self.scaled(x))

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
        f = values.new_zeros(values.shape[0], len(wanted) + 1).scatter_add(1, column[indices], values)
        return f[:, place].view(*x.shape[:-1], len(features))

    def decode(self, f: Tensor, x: Tensor | None = None) -> Tensor:
        """Feature activations [..., d_sae] to vectors [..., d_in] (of a transcoder, [..., d_out]).

        `x` [..., d_in]: the vectors that f is the code of. Needed where they are brought to size one by one
        (`cfg.normalize`) and by a skip_transcoder, which raise ValueError without; else not read.
        """
        xhat = f.to(self.device, self.dtype) @ self.W_dec + self.b_dec
        return self._unscaled(xhat.view(-1, self.b_dec.shape[0]), x).view(*f.shape[:-1], -1)

    def decode_sparse(self, values: Tensor, indices: Tensor, x: Tensor | None = None) -> Tensor:
        """What `encode_sparse` gives, [n, m] twice, to vectors [n, d_in]. `x` as in `decode`."""
        places = Places.even(indices, self.cfg.d_sae)
        return self._unscaled(decode(values, places, self.W_dec, self.b_dec), x)

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction of vectors [..., d_in]; of a transcoder, its prediction [..., d_out]."""
        return self.decode_sparse(*self.encode_sparse(x), x).view(*x.shape[:-1], -1)

    def check_features(self, features: Tensor) -> None:
        """Raise ValueError if a feature id is not one of this SAE's."""
        if features.numel() and not (0 <= int(features.min()) and int(features.max()) < self.cfg.d_sae):
            bad = next(int(f) for f in features.reshape(-1) if not 0 <= int(f) < self.cfg.d_sae)
            last = self.cfg.d_sae - 1
            raise ValueError(f"There is no feature {bad}: this SAE's features are 0 to {last} (d_sae - 1).")

    @torch.no_grad()
    def fold_(self) -> SAE:
        """Write the scales into the weights: the same f and the same xhat, with input_scale 1."""
        return self.rescale_(torch.ones_like(self.input_scale), torch.ones_like(self.input_scale))

    @torch.no_grad()
    def rescale_(self, input_scale: Tensor, output_scale: Tensor) -> SAE:
        """Bring the weights to other scales: the same f and the same xhat. An autoencoder has one for both."""
        read, write = self.input_scale / input_scale, output_scale / self.output_scale
        self.W_enc.mul_(read)
        self.W_dec.mul_(write)
        self.b_dec.mul_(write)
        self.architecture.rescale(self, read, write)
        self.output_scale.copy_(output_scale)
        self.input_scale.copy_(input_scale)
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
        parts = [cfg.architecture, f"d_in={cfg.d_in}", f"d_out={cfg.d_out}" if cfg.d_out else "", f"d_sae={cfg.d_sae}"]
        parts += [self.architecture.describe(cfg), f"hook_name={self.metadata.hook_name!r}"]
        return ", ".join(part for part in parts if part)

    def __repr__(self) -> str:
        return f"SAE({self.extra_repr()})"

    def scaled(self, x: Tensor) -> Tensor:
        """Vectors [..., d_in] in the units that the weights belong to, [n, d_in]."""
        x = self._flat(x)
        own = own_size(x, self.cfg.normalize)
        return (x if own is None else (x - own.shift) / own.size) * self.input_scale

    def _unscaled(self, xhat: Tensor, x: Tensor | None) -> Tensor:
        """A reconstruction [n, d_out] in the weights' units, without what skips the code, to the units of x."""
        architecture, normalize = self.architecture, self.cfg.normalize
        # what a transcoder predicts has no size of its own that would be known beforehand
        by_itself = normalize in BY_ITSELF and not architecture.predicts_target
        if x is None:
            if by_itself or architecture.skips:
                why = f"brings each vector to size by itself ({normalize})" if by_itself else "has a skip connection"
                raise ValueError(f"This SAE {why}: decode needs the vectors of the code too, as in decode(f, x).")
            return xhat / self.output_scale
        skipped = architecture.skip(self, self.scaled(x)) if architecture.skips else None
        xhat = (xhat if skipped is None else xhat + skipped) / self.output_scale
        own = own_size(self._flat(x), normalize) if by_itself else None
        return xhat if own is None else xhat * own.size + own.shift

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
