"""Each architecture's loss and gradients against its equation, written densely with plain autograd in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from saewidgets.sae import SAE, SAEConfig, selection
from saewidgets.sae.architectures import Knobs, architectures, get_architecture

N, D_IN, D_OUT, D_SAE, K = 50, 12, 9, 40, 4
KNOBS = Knobs(sparsity=0.7, k=K, progress=0.6)
DEAD = torch.arange(34, 40)

Reference = Callable[[SAE, Tensor, Tensor], Tensor]


def make(name: str, **options: Any) -> SAE:
    """An SAE with random weights; the last features are never active in `vectors`."""
    reads = get_architecture(name).reads or frozenset()
    sizes = {"d_in": D_IN, "d_sae": D_SAE, "architecture": name, "dtype": "float64"}
    sae = SAE(SAEConfig(**sizes, **({"k": K} if "k" in reads else {}), **options))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter_name, p in sae.named_parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype) * (0.4 if p.ndim == 2 else 0.2))
            if parameter_name == "log_threshold":
                p.sub_(torch.tensor([1.0, 3.0]).repeat(D_SAE // 2))  # some nearer to 0 than the window is wide
        if name == "relu_kl":
            sae.pressure.normal_(generator=generator)
        if name == "matching_pursuit":
            sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True))
            sae.W_enc.copy_(sae.W_dec.t())
        else:
            sae.b_enc[DEAD] = -50.0
    return sae


def vectors(d: int = D_IN, seed: int = 3) -> Tensor:
    return torch.randn(N, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def hidden(sae: SAE, x: Tensor) -> Tensor:
    return (x - sae.b_dec) @ sae.W_enc + sae.b_enc


def error(sae: SAE, f: Tensor, target: Tensor) -> Tensor:
    return (target - f @ sae.W_dec - sae.b_dec).square().mean()


def keep(h: Tensor, k: int) -> Tensor:
    """All but the k largest of each row are 0."""
    top = h.topk(k, dim=-1)
    return torch.zeros_like(h).scatter(1, top.indices, top.values)


def aux(sae: SAE, h: Tensor, e: Tensor) -> Tensor:
    """AuxK over all dead features: their number is below aux_k."""
    e = e.detach()
    ehat = h[:, DEAD].relu() @ sae.W_dec[DEAD]
    return sae.cfg.aux_coefficient * (e - ehat).square().sum() / (e - e.mean(0)).square().sum()


def topk(sae: SAE, x: Tensor, y: Tensor) -> Tensor:
    return error(sae, keep(hidden(sae, x), K).relu(), y)


def multi(sae: SAE, x: Tensor, y: Tensor) -> Tensor:
    return topk(sae, x, y) + error(sae, keep(hidden(sae, x), 9).relu(), y) / 8


def abstopk(sae: SAE, x: Tensor, y: Tensor) -> Tensor:
    h = hidden(sae, x)
    return error(sae, h * (keep(h.abs(), K) > 0), y)


def batch_code(h: Tensor) -> Tensor:
    threshold = h.reshape(-1).topk(N * K).values[-1].detach()
    return h.relu() * (h >= threshold)


def batchtopk(sae: SAE, x: Tensor, y: Tensor) -> Tensor:
    return error(sae, batch_code(hidden(sae, x)), y)


def matryoshka(sae: SAE, x: Tensor, y: Tensor) -> Tensor:
    f = batch_code(hidden(sae, x))
    widths = sae.cfg.matryoshka_widths or ()
    return torch.stack([error(sae, f * (torch.arange(D_SAE) < m), y) for m in widths]).mean()


def relu(sae: SAE, x: Tensor, y: Tensor) -> Tensor:
    f = hidden(sae, x).relu()
    return error(sae, f, y) + KNOBS.sparsity / D_IN * (f * sae.W_dec.norm(dim=1)).sum(1).mean()


def p_anneal(sae: SAE, x: Tensor, y: Tensor) -> Tensor:
    f = hidden(sae, x).relu()
    p = 1 + (sae.cfg.p_final - 1) * KNOBS.progress
    powers = ((f + 0.01) ** p - 0.01**p).mean(0)
    quotient = torch.where(powers > 0, f.mean(0) / powers, 0.0).detach()
    return error(sae, f, y) + KNOBS.sparsity / D_IN * (powers * quotient).sum()


def gated(sae: SAE, x: Tensor, y: Tensor) -> Tensor:
    pi = hidden(sae, x)
    magnitude = ((x - sae.b_dec) @ sae.W_enc) * sae.r_mag.exp() + sae.b_mag
    gate_error = (y - pi.relu() @ sae.W_dec.detach() - sae.b_dec.detach()).square().mean()
    code = (pi > 0) * magnitude.relu()
    return error(sae, code, y) + gate_error + KNOBS.sparsity / D_IN * pi.relu().sum(1).mean()


def relu_kl(sae: SAE, x: Tensor, y: Tensor) -> Tensor:
    h, rho = hidden(sae, x), sae.cfg.target_rate
    known = 0.9 * sae.rate + 0.1 * (h > 0).double().mean(0)
    smooth = torch.sigmoid(h / sae.cfg.bandwidth).mean(0)
    # the gradient of KL at the known rate, through the smooth one
    slope = (-rho / known + (1 - rho) / (1 - known)).detach()
    kl = rho * torch.log(rho / known) + (1 - rho) * torch.log((1 - rho) / (1 - known))
    known_kl = kl.detach() + slope * (smooth - smooth.detach())
    known_rate = known.detach() + smooth - smooth.detach()
    return error(sae, h.relu(), y) + KNOBS.sparsity * (known_kl + sae.pressure * known_rate).mean()


def jumprelu(sae: SAE, x: Tensor, y: Tensor) -> Tensor:
    """Straight-through estimators by the detach trick, eq. 11 and 12."""
    h, theta, width = hidden(sae, x), sae.log_threshold.exp(), sae.cfg.bandwidth
    near = ((h - theta).abs() < width / 2).double().detach()
    active = (h > theta).double().detach()
    f = h * active - near * (theta.detach() / width) * (theta - theta.detach())
    if sae.cfg.penalty == "step":
        size = active - near / width * (theta - theta.detach())
    else:
        size = torch.tanh(4 * f * sae.W_dec.norm(dim=1))
    return error(sae, f, y) + KNOBS.sparsity * size.sum(1).mean()


def dense(sae: SAE, x: Tensor, y: Tensor) -> Tensor:
    activation = {"relu": torch.relu, "linear": torch.nn.Identity(), "sigmoid": torch.sigmoid}[sae.cfg.activation]
    return error(sae, activation(hidden(sae, x)), y)


def matching_pursuit(sae: SAE, x: Tensor, y: Tensor) -> Tensor:
    left = x - sae.b_dec
    for _ in range(K):
        h = left @ sae.W_dec.T
        step, which = h.relu().max(1)
        left = left - step.unsqueeze(1) * sae.W_dec[which]
    return left.square().mean()


def transcoder(sae: SAE, x: Tensor, y: Tensor) -> Tensor:
    f = keep((x - sae.centre) @ sae.W_enc + sae.b_enc, K).relu()
    skipped = (x - sae.centre) @ sae.W_skip if sae.cfg.architecture == "skip_transcoder" else 0
    return (y - f @ sae.W_dec - sae.b_dec - skipped).square().mean()


CASES: list[tuple[str, Reference, dict[str, Any]]] = [
    ("topk", topk, {}),
    ("topk", multi, {"multi_k": 9}),
    ("abstopk", abstopk, {}),
    ("batchtopk", batchtopk, {}),
    ("matryoshka", matryoshka, {"matryoshka_widths": (5, 20, 40)}),
    ("relu", relu, {}),
    ("p_anneal", p_anneal, {}),
    ("gated", gated, {}),
    ("relu_kl", relu_kl, {"target_rate": 0.2}),
    ("jumprelu", jumprelu, {}),
    ("jumprelu", jumprelu, {"penalty": "tanh"}),
    ("dense", dense, {}),
    ("dense", dense, {"activation": "linear"}),
    ("dense", dense, {"activation": "sigmoid"}),
    ("matching_pursuit", matching_pursuit, {}),
    ("transcoder", transcoder, {"d_out": D_OUT}),
    ("skip_transcoder", transcoder, {"d_out": D_OUT}),
]


def compare(sae: SAE, ours: Tensor, reference: Tensor) -> None:
    assert torch.allclose(ours, reference, rtol=1e-12, atol=1e-12)
    names, parameters = zip(*sae.named_parameters(), strict=True)
    options: dict[str, Any] = {"allow_unused": True, "materialize_grads": True}
    gradients = torch.autograd.grad(ours, parameters, **options)
    expected = torch.autograd.grad(reference, parameters, **options)
    for name, a, b in zip(names, gradients, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-10), name
    unused = {"matching_pursuit": {"W_enc", "b_enc"}}.get(sae.cfg.architecture, set())
    assert {name for name, b in zip(names, expected, strict=True) if not b.abs().max() > 0} == unused


def test_every_architecture_is_here() -> None:
    assert {name for name, _, _ in CASES} == {name for name in architectures() if "saewidgets" in module(name)}


def module(name: str) -> str:
    return type(get_architecture(name)).__module__


@pytest.mark.parametrize("form", ["sparse", "dense"])
@pytest.mark.parametrize(("name", "reference", "options"), CASES)
def test_loss_and_gradients(
    name: str, reference: Reference, options: dict[str, Any], form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "MAX_DENSITY", {"sparse": 0.999, "dense": 0.0}[form])
    sae, x = make(name, **options), vectors()
    y = vectors(D_OUT, seed=4) if "d_out" in options else x
    losses = get_architecture(name).loss(sae, x, y, KNOBS, None)
    compare(sae, losses.loss, reference(sae, x, y))
    assert losses.fired.shape == (D_SAE,) and not losses.residual.requires_grad
    assert all(value.ndim == 0 and not value.requires_grad for value in losses.extra.values())


@pytest.mark.parametrize("name", ["topk", "abstopk", "batchtopk", "matryoshka", "transcoder"])
def test_aux_k_is_added(name: str) -> None:
    sae, x = make(name), vectors()
    with torch.no_grad():
        sae.b_enc[DEAD] = 0.1  # now near the threshold: AuxK has something to work with
        sae.b_enc[: DEAD[0]] += 9.0
    rule = get_architecture(name)
    losses = rule.loss(sae, x, x, KNOBS, None)
    assert losses.fired[DEAD].sum() == 0
    b_in = sae.b_dec.detach() if name != "transcoder" else sae.centre
    h = (x - b_in) @ sae.W_enc + sae.b_enc
    compare(sae, rule.loss(sae, x, x, KNOBS, DEAD).loss, losses.loss + aux(sae, h, losses.residual))


def test_jumprelu_pulls_dead_features_back() -> None:
    sae, x = make("jumprelu"), vectors()
    rule = get_architecture("jumprelu")
    short = sae.log_threshold.exp()[DEAD] - ((x - sae.b_dec.detach()) @ sae.W_enc + sae.b_enc)[:, DEAD]
    expected = rule.loss(sae, x, x, KNOBS, None).loss + 1e-3 * KNOBS.sparsity * short.relu().sum(1).mean()
    compare(sae, rule.loss(sae, x, x, KNOBS, DEAD).loss, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", ["sparse", "dense"])
def test_p_anneal_pulls_a_feature_next_to_nothing_as_l1_does(
    dtype: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As f goes to 0, q p (f + 0.01)^(p - 1) goes to 1: where two powers have no difference any more, too."""
    monkeypatch.setattr(selection, "MAX_DENSITY", {"sparse": 0.999, "dense": 0.0}[form])
    sae, x, tiny = make("p_anneal").to(getattr(torch, dtype)), vectors().to(getattr(torch, dtype)), 1e-9
    x[:, 0] = 0.0
    x[7, 0] = 1.0
    with torch.no_grad():
        sae.b_dec.zero_()
        sae.b_enc[3] = 0.0
        sae.W_enc[:, 3] = 0.0
        sae.W_enc[0, 3] = tiny  # the only activation of feature 3, at vector 7
        sae.W_dec[3] = 0.0  # nothing but the penalty reaches it
    assert sae.encode(x)[:, 3].nonzero().tolist() == [[7]]
    loss = get_architecture("p_anneal").loss(sae, x, x, KNOBS, None).loss
    (gradient,) = torch.autograd.grad(loss, [sae.W_enc])
    slope = (1 + tiny / 0.01) ** ((sae.cfg.p_final - 1) * KNOBS.progress)
    expected = KNOBS.sparsity / D_IN / N * slope * x[7]
    assert torch.allclose(gradient[:, 3], expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("name", "reference", "options"), CASES)
def test_residual_and_encode_agree_with_the_loss(name: str, reference: Reference, options: dict[str, Any]) -> None:
    """What the code is outside of training: encode, encode_sparse, decode and forward say the same."""
    sae, x = make(name, **options), vectors()
    with torch.no_grad():
        f, (values, indices), xhat = sae.encode(x), sae.encode_sparse(x), sae(x)
        y = vectors(sae.b_dec.shape[0], seed=4) if sae.cfg.d_out else x
        losses = get_architecture(name).loss(sae, x, y, KNOBS, None)
    assert torch.allclose(torch.zeros_like(f).scatter_add(1, indices, values), f)
    used = [row[value != 0].tolist() for row, value in zip(indices, values, strict=True)]
    assert all(len(set(row)) == len(row) for row in used)
    assert torch.allclose(sae.decode(f, x), xhat) and torch.allclose(sae.encode_features(x, torch.arange(40)), f)
    if name not in ("batchtopk", "matryoshka"):  # whose code in training is another one
        assert torch.allclose(y - xhat, losses.residual)
        assert torch.equal((f != 0).sum(0).double(), losses.fired)
