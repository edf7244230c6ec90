"""What the architectures promise beside their equations: refused options, rates, shrinkage, thresholds, nesting."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from saewidgets.sae import SAE, SAEConfig, kernels, load_sae, save_sae, selection
from saewidgets.sae.architectures import Knobs, architectures, get_architecture
from saewidgets.training.config import TrainConfig
from saewidgets.training.step import Steps, prepare

D_IN, N_TRUE, BATCH = 24, 40, 256
README = Path(__file__).parents[2] / "saewidgets" / "sae" / "architectures" / "README.md"


def toy(n: int, seed: int, strength: float | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Strengths [n, N_TRUE], vectors [n, D_IN] and directions [N_TRUE, D_IN]; 2 features in a vector on average."""
    rows = torch.randn(N_TRUE, D_IN, generator=torch.Generator().manual_seed(77))
    directions = torch.nn.functional.normalize(rows, dim=1)
    generator = torch.Generator().manual_seed(seed)
    active = torch.rand(n, N_TRUE, generator=generator) < 0.05
    size = 1 + torch.rand(n, N_TRUE, generator=generator) if strength is None else torch.full((n, N_TRUE), strength)
    return active * size, (active * size) @ directions, directions


def trained(sae: SAE, n_steps: int = 200, lr: float = 5e-3, seed: int = 0) -> Steps:
    _, x, _ = toy(n_steps * BATCH, seed)
    config = TrainConfig(n_tokens=n_steps * BATCH)
    steps = Steps(sae, config, n_steps, prepare(sae, x[:4096]))
    for step, batch in enumerate(x.split(BATCH)):
        if step % 5 == 0:
            steps.find_dead()
        progress = step / n_steps
        coefficient = min(1.0, 10 * progress) * (sae.cfg.sparsity_coefficient or 0.0)
        knobs = Knobs(coefficient, sae.cfg.k, progress)
        steps.take(batch, batch, knobs, lr * config.lr_factor(progress), revive=step % 4 == 0)
        if progress < 0.8 and step % 10 == 0:
            steps.resample()
    return steps


def make(name: str, **options: Any) -> SAE:
    k = {"k": 2} if "k" in (get_architecture(name).reads or ()) else {}
    return SAE(SAEConfig(d_in=D_IN, d_sae=64, architecture=name, **k, **options))


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


OWN = [name for name in architectures() if type(get_architecture(name)).__module__.startswith("saewidgets.")]
OPTIONS = {"relu": {"sparsity_coefficient": 1.0}, "p_anneal": {"sparsity_coefficient": 1.0},
           "gated": {"sparsity_coefficient": 3.0}, "jumprelu": {"sparsity_coefficient": 0.02},
           "relu_kl": {"target_rate": 0.05}}  # fmt: skip


@pytest.mark.parametrize("name", [n for n in OWN if "transcoder" not in n])
def test_each_learns_and_nothing_is_left_out(name: str) -> None:
    sae = make(name, **OPTIONS.get(name, {}))
    before = {n: p.detach().clone() for n, p in sae.named_parameters()}
    steps = trained(sae)
    readings = steps.read()
    _, x, _ = toy(4000, 9)
    explained = 1 - float((x - sae(x)).square().sum() / (x - x.mean(0)).square().sum())
    assert explained > 0.45 and readings.skipped == 0
    unused = {"matching_pursuit": {"b_enc"}}.get(name, set())
    assert {n for n, p in sae.named_parameters() if torch.equal(p, before[n])} == unused
    if sae.architecture.unit_norm_decoder:
        assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(64), atol=1e-5)


@pytest.mark.parametrize("name", ["transcoder", "skip_transcoder"])
def test_a_transcoder_learns_what_another_hook_holds(name: str) -> None:
    n_steps, d_out = 250, 9
    strengths, x, _ = toy(n_steps * BATCH, 0)
    write = torch.randn(N_TRUE, d_out, generator=torch.Generator().manual_seed(5))
    y = 20 * strengths @ write + 3
    sae = make(name, d_out=d_out)
    steps = Steps(sae, TrainConfig(n_tokens=len(x)), n_steps, prepare(sae, x[:4096], y[:4096]))
    for a, b in zip(x.split(BATCH), y.split(BATCH), strict=True):
        steps.take(a, b, Knobs(0.0, 2, 0.5), 1e-2, revive=False)
    predicted = sae(x[:4000])
    assert predicted.shape == (4000, d_out)
    explained = 1 - float((y[:4000] - predicted).square().sum() / (y[:4000] - y[:4000].mean(0)).square().sum())
    assert explained > 0.6
    assert 0.2 < steps.read().explained_variance < explained  # of all steps, the first ones too
    assert torch.allclose(sae.clone()(x[:50]), predicted[:50], atol=1e-3)


@pytest.mark.parametrize("rate", [0.05, 0.1])
def test_kl_reaches_its_target_rate(rate: float) -> None:
    sae = make("relu_kl", target_rate=rate)
    trained(sae, n_steps=500)
    _, x, _ = toy(20_000, 9)
    fires = (sae.encode(x) > 0).double().mean(0) / rate
    assert float(fires.mean()) == pytest.approx(1, abs=0.15)
    # each of them, not only their mean
    assert ((fires > 0.6) & (fires < 1.6)).double().mean() > 0.8 and fires.min() > 0.1


def test_without_the_kl_penalty_the_rate_is_another_one() -> None:
    free = make("relu_kl", target_rate=0.05, sparsity_coefficient=0.0)
    trained(free, n_steps=100)
    assert (free.encode(toy(2000, 9)[1]) > 0).double().mean() > 3 * 0.05


def test_l1_shrinks_by_half_the_coefficient() -> None:
    """One feature, always of the same strength: f ends lambda / 2 below it, in the units of the scaled input."""
    generator = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(D_IN, generator=generator), dim=0)
    x = (torch.rand(4096, 1, generator=generator) < 0.5) * 4.0 * direction
    found = {}
    for coefficient in (0.0, 2.0):
        cfg = SAEConfig(d_in=D_IN, d_sae=1, architecture="relu", sparsity_coefficient=coefficient,
                        normalize="none", init_b_dec="zeros")  # fmt: skip
        sae = SAE(cfg)
        with torch.no_grad():
            sae.W_dec.copy_(direction.unsqueeze(0))
            sae.W_enc.copy_(direction.unsqueeze(1))
        steps = Steps(sae, TrainConfig(n_tokens=1), 300, prepare(sae, x))
        for step in range(300):
            batch = x[(step % 16) * 256 :][:256]
            steps.take(batch, batch, Knobs(coefficient, 1, 0.5), 1e-2 * (1 - step / 300), revive=False)
        active = x.norm(dim=1) > 0
        with torch.no_grad():
            found[coefficient] = float((sae.encode(x)[active, 0] * sae.W_dec.norm()).mean())
            silent = float(sae.encode(x)[~active].abs().max())
        assert silent < 0.3
    # b_dec takes up a part of what is missing in every vector, so f is compared with f
    assert found[0.0] == pytest.approx(4.0, abs=0.15)
    assert found[0.0] - found[2.0] == pytest.approx(1.0 * 2, abs=0.4)


def test_batchtopk_keeps_k_on_average_and_its_threshold_keeps_that_outside_of_training() -> None:
    sae = make("batchtopk")
    steps = trained(sae)
    readings = steps.read()
    assert 1.5 < readings.l0 <= 2 and readings.extra["threshold"] > 0
    _, x, _ = toy(4000, 9)
    f = sae.encode(x)
    per_vector = (f > 0).sum(1)
    assert float(per_vector.double().mean()) == pytest.approx(2, abs=0.4)
    assert per_vector.min() == 0 and per_vector.max() >= 4  # it differs between vectors, as it should
    assert torch.equal(sae.encode(x[:1]), f[:1])  # a vector's code does not depend on its neighbours
    assert f[f > 0].min() > sae.get_buffer("threshold")


def test_a_vector_has_at_most_four_times_k_in_a_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    x, W_enc = torch.randn(30, D_IN, generator=generator), torch.randn(D_IN, 64, generator=generator)
    x[0] *= 100
    h, places = selection.batch_top(x, W_enc, torch.zeros(64), torch.zeros(D_IN), 2)
    counts = torch.bincount(places.rows, minlength=30)
    assert counts[0] == 8 and counts.sum() == 60 == len(h)


def test_a_matryoshka_does_better_than_its_twin_with_few_features() -> None:
    _, x, _ = toy(4000, 9)

    def first(sae: SAE, m: int) -> float:
        trained(sae)
        f = sae.encode(x) * (torch.arange(64) < m)
        return 1 - float((x - sae.decode(f)).square().sum() / (x - x.mean(0)).square().sum())

    assert first(make("matryoshka", matryoshka_widths=(8, 64)), 8) > first(make("batchtopk"), 8) + 0.03


def test_abstopk_uses_both_signs() -> None:
    sae = make("abstopk")
    generator = torch.Generator().manual_seed(0)
    _, x, _ = toy(200 * BATCH, 0)
    signs = torch.randint(0, 2, (len(x), 1), generator=generator) * 2.0 - 1
    x = x * signs
    steps = Steps(sae, TrainConfig(n_tokens=len(x)), 200, prepare(sae, x[:4096]))
    for batch in x.split(BATCH):
        steps.take(batch, batch, Knobs(0.0, 2, 0.5), 5e-3, revive=False)
    f = sae.encode(x[:4000])
    both = (f > 0).any(0) & (f < 0).any(0)
    assert both.double().mean() > 0.4
    values, _ = sae.encode_sparse(x[:50])
    assert values.min() < 0


def test_jumprelu_learns_its_thresholds_and_keeps_them_in_float32() -> None:
    sae = make("jumprelu", sparsity_coefficient=0.02)
    before = sae.get_parameter("log_threshold").detach().clone()
    steps = trained(sae)
    after = sae.get_parameter("log_threshold").detach()
    assert after.dtype == torch.float32 and (after - before).abs().mean() > 0.2
    assert steps.read().extra["threshold"] > 0.3
    _, x, _ = toy(4000, 9)
    f = sae.encode(x)
    assert (f[f > 0].min() > after.exp().min()) and 1 < float((f > 0).sum(1).double().mean()) < 10


def test_k_is_the_knob_s() -> None:
    for name in ("topk", "batchtopk", "matryoshka", "abstopk"):
        sae = make(name)
        _, x, _ = toy(256, 1)
        losses = sae.architecture.loss(sae, sae.scaled(x), sae.scaled(x), Knobs(0.0, 7, 0.0), None)
        assert 6 < float(losses.fired.sum()) / 256 <= 7, name


def test_no_step_of_a_sparse_architecture_makes_a_tensor_of_batch_by_features(monkeypatch: pytest.MonkeyPatch) -> None:
    n, d_sae = 200, 400
    monkeypatch.setattr(kernels, "CHUNK_ELEMENTS", 4 * d_sae)
    sizes: list[int] = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in (out if isinstance(out, tuple) else (out,)) if isinstance(t, Tensor))
            return out

    x = torch.randn(n, 8, generator=torch.Generator().manual_seed(0))
    for name in sorted(set(OWN) - {"dense", "relu_kl", "matching_pursuit"}):
        k = {"k": 4} if "k" in (get_architecture(name).reads or ()) else {}
        widths = {"matryoshka_widths": (100, 400)} if name == "matryoshka" else {}
        sae = SAE(SAEConfig(d_in=8, d_sae=d_sae, architecture=name, **k, **widths))
        with torch.no_grad():
            sae.b_enc.sub_(sae.W_enc.norm(dim=0).mean() * 2.2)  # about 1% active
        sizes.clear()
        with Sizes():
            losses = sae.architecture.loss(sae, x, x, Knobs(0.1, 4, 0.5), None)
            torch.autograd.grad(losses.loss, list(sae.parameters()), allow_unused=True)
        assert float(losses.fired.sum()) > 0 and max(sizes) < n * d_sae / 4, name


@pytest.mark.parametrize("normalize", ["none", "expected_norm", "unit_norm", "constant_norm", "layer_norm"])
def test_the_input_has_the_size_that_was_asked_for(normalize: str) -> None:
    sae = make("topk", normalize=normalize)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, D_IN, generator=generator) * torch.linspace(1, 9, 500).unsqueeze(1) + 2
    prepare(sae, x)
    scaled = sae.scaled(x)
    if normalize == "none":
        assert torch.equal(scaled, x)
    elif normalize == "expected_norm":
        assert float(scaled.norm(dim=1).mean()) == pytest.approx(D_IN**0.5, rel=1e-4)
    elif normalize == "layer_norm":
        assert scaled.mean(1).abs().max() < 1e-5 and (scaled.std(1) - 1).abs().max() < 1e-3
    else:
        length = 1.0 if normalize == "unit_norm" else D_IN**0.5
        assert torch.allclose(scaled.norm(dim=1), torch.full((500,), length), rtol=1e-4)
    assert torch.allclose(sae.b_dec, scaled.mean(0), atol=1e-4)


def test_the_geometric_median_is_not_drawn_by_outliers() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1000, D_IN, generator=generator) + 3
    x[:50] += 500
    middles = {}
    for start in ("mean", "geometric_median", "zeros"):
        sae = make("topk", normalize="none", init_b_dec=start)
        prepare(sae, x)
        middles[start] = float(sae.b_dec.mean())
    assert middles["zeros"] == 0 and middles["mean"] > 20 and middles["geometric_median"] == pytest.approx(3, abs=0.6)


def test_the_readme_s_own_architecture_trains_and_is_saved(tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    exec(compile(code.group(1), "README.md", "exec"), {"__name__": "readme"})
    sae = make("log_penalty", sparsity_coefficient=0.1)
    readings = trained(sae).read()
    assert readings.explained_variance > 0.5 and readings.extra["log_penalty"] > 0
    assert (sae.encode(toy(2000, 9)[1]) > 0).double().sum(1).mean() < 15
    sae.fold_()
    loaded = load_sae(save_sae(sae, tmp_path / "mine"))
    _, x, _ = toy(50, 9)
    assert loaded.cfg == sae.cfg and torch.allclose(loaded(x), sae(x), atol=1e-5)


def test_the_readme_lists_them_all() -> None:
    listed = set(re.findall(r"^\| `(\w+)` \|", README.read_text(encoding="utf-8"), re.MULTILINE))
    assert listed == set(OWN)
