"""From a model and an SAE to an index."""

from __future__ import annotations

import dataclasses
import os
import threading

import numpy as np
import pytest
import torch

import saewidgets as sw
from saewidgets.activations.contexts import pack
from saewidgets.activations.harvest import harvest
from saewidgets.activations.hooks import check_fits
from saewidgets.features import FeatureIndex
from saewidgets.features.build import choose

N = 1500


@pytest.fixture(scope="module")
def built(tiny_sae, demo_model, texts, tmp_path_factory):
    path = tmp_path_factory.mktemp("built") / "features"
    return FeatureIndex.build(tiny_sae, demo_model, texts, path, max_tokens=N)


def test_every_activation_is_the_saes_own(built, tiny_sae, demo_model, texts):
    contexts = pack(demo_model, texts, 128)
    items = built.sql("select * from items order by item")
    assert built.n_tokens == N == items["scanned"].sum()
    activations = built.sql("select * from activations order by item, feature")
    for context in (0, 3, int(items["context"].max())):
        mine = items[items["context"] == context]
        tokens = torch.tensor(mine["token"].to_numpy())
        # the text of this context, found again in the packed texts
        where = [
            i
            for i in range(len(contexts))
            if contexts.tokens[i, : len(tokens)].equal(tokens.long()) and contexts.doc[i] == mine["doc"].iloc[0]
        ]
        x = harvest(demo_model, contexts.tokens[where[0]][None], check_fits(tiny_sae, demo_model))[0]
        f = tiny_sae.encode(x[: len(tokens)]).detach()
        f[0] = 0  # BOS is excluded
        row = torch.zeros_like(f)
        held = activations[activations["item"].isin(mine["item"])]
        positions = held["item"].map(mine.set_index("item")["position"])
        row[torch.tensor(positions.to_numpy()), torch.tensor(held["feature"].to_numpy())] = torch.tensor(
            held["value"].to_numpy()
        )
        torch.testing.assert_close(row, f, atol=1e-4, rtol=1e-4)


def test_bos_is_shown_and_not_scanned(built, demo_model):
    items = built.sql("select * from items")
    bos = items[items["position"] == 0]
    assert (bos["token"] == demo_model.tokenizer.bos_token_id).all() and not bos["scanned"].any()
    assert items[items["position"] > 0]["scanned"].all()
    feature = int(built.table().sort_values("count").iloc[-1]["feature"])
    shown = built.examples(feature, n=50, kind="random", window=None)
    assert all(built.tokens([tokens[0]])[0].special for tokens in shown["tokens"])
    assert all(values[0] == 0 for values in shown["values"])


def test_the_words_are_the_models(built, demo_model):
    from saewidgets.models.tokens import vocabulary_of

    assert built.tokens(range(200)) == vocabulary_of(demo_model).display(range(200))


def test_the_logits_are_the_models_direct_effect(built, tiny_sae, demo_model):
    # On a residual of unit size, the model's own final norm and unembedding move by this for a small activation.
    feature, size = 5, 1e-3
    x = torch.nn.functional.normalize(torch.randn(1, 1, 288), dim=-1) * 288**0.5
    direction = tiny_sae.W_dec[feature].detach()
    direction_across = direction - (direction @ x[0, 0]) * x[0, 0] / 288  # a change that keeps the residual's size
    with torch.no_grad():
        end = lambda r: demo_model.ln_final(r)[0, 0] @ demo_model.W_U  # noqa: E731
        moved = (end(x + size * direction_across) - end(x)) / size
        along = (end(x) * (direction @ x[0, 0]) / 288).detach()
    effect = moved + along
    effect = effect - effect.mean()
    positive, negative = built.logits(feature)
    for frame in (positive, negative):
        assert np.allclose(effect[frame["token"].tolist()], frame["value"], atol=0.02 * float(effect.abs().max()))


def test_the_same_inputs_open_what_is_there(built, tiny_sae, demo_model, texts, monkeypatch):
    import saewidgets.features.build as build

    def no_forward(*args, **kwargs):
        raise AssertionError("the model was run")

    monkeypatch.setattr(build, "harvest", no_forward)
    again = FeatureIndex.build(tiny_sae.clone(), demo_model, list(texts), built.path, max_tokens=N)
    assert again.meta == built.meta


def test_the_same_index_with_damaged_files_is_built_again(tiny_sae, demo_model, texts, tmp_path):
    path = tmp_path / "f"
    first = FeatureIndex.build(tiny_sae, demo_model, texts, path, max_tokens=300)
    whole = first.table()
    (path / "features.parquet").write_bytes(b"cut")
    assert FeatureIndex.build(tiny_sae, demo_model, texts, path, max_tokens=300).table().equals(whole)
    (path / "items.parquet").unlink()
    assert FeatureIndex.build(tiny_sae, demo_model, texts, path, max_tokens=300).table().equals(whole)


def test_another_index_is_refused_and_says_what_differs(built, tiny_sae, demo_model, texts):
    other = tiny_sae.clone()
    with torch.no_grad():
        other.b_enc += 0.1
    with pytest.raises(FileExistsError, match=r"another feature index \(SAE, seed differ\); give overwrite=True"):
        FeatureIndex.build(other, demo_model, texts, built.path, max_tokens=N, seed=1)
    with pytest.raises(FileExistsError, match=r"\(texts differ\)"):
        FeatureIndex.build(tiny_sae, demo_model, texts[:-1], built.path, max_tokens=N)
    assert FeatureIndex.open(built.path).meta == built.meta


def test_open_checks_what_it_is_given(built, tiny_sae, texts):
    FeatureIndex.open(built.path, sae=tiny_sae, texts=texts)
    scaled = sw.SAE(tiny_sae.cfg)  # the same function before it is folded, as in a paused run
    with torch.no_grad():
        for name in ("W_enc", "W_dec", "b_enc", "b_dec"):
            getattr(scaled, name).copy_(getattr(tiny_sae, name))
        for tensor, factor in ((scaled.W_enc, 0.5), (scaled.W_dec, 2.0), (scaled.b_dec, 2.0)):
            tensor.mul_(factor)
        scaled.input_scale.fill_(2.0)
    FeatureIndex.open(built.path, sae=scaled)
    with pytest.raises(ValueError, match="is of another SAE"):
        FeatureIndex.open(built.path, sae=sw.SAE(dataclasses.replace(tiny_sae.cfg, seed=1)))
    with pytest.raises(ValueError, match="was built on other texts"):
        FeatureIndex.open(built.path, texts=[*texts[1:], texts[0]])


def test_overwrite_and_the_same_seed(built, tiny_sae, demo_model, texts, tmp_path):
    path = tmp_path / "features"
    first = FeatureIndex.build(tiny_sae, demo_model, texts, path, max_tokens=N, seed=1)
    drawn = first.sql("select token from items order by item")["token"].tolist()
    second = FeatureIndex.build(tiny_sae, demo_model, texts, path, max_tokens=N, overwrite=True)
    assert second.table().equals(built.table())
    assert second.sql("from items order by item").equals(built.sql("from items order by item"))
    assert drawn != second.sql("select token from items order by item")["token"].tolist()
    assert os.listdir(tmp_path) == ["features"]


def test_an_interrupt_during_the_scan_leaves_nothing(tiny_sae, demo_model, texts, tmp_path):
    def interrupt(phase: str, done: float) -> None:
        if phase == "sorting the activations":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FeatureIndex.build(tiny_sae, demo_model, texts, tmp_path / "f", max_tokens=300, on_progress=interrupt)
    assert os.listdir(tmp_path) == []


def test_progress_goes_through_its_phases(tiny_sae, demo_model, texts, tmp_path):
    heard: dict[str, list[float]] = {}
    FeatureIndex.build(
        tiny_sae,
        demo_model,
        texts,
        tmp_path / "f",
        max_tokens=300,
        on_progress=lambda phase, done: heard.setdefault(phase, []).append(done),
    )
    assert list(heard) == ["scanning the text", "reading the weights", "sorting the activations", "done"]
    assert heard.pop("done") == [1.0]
    for shares in heard.values():
        assert shares[0] == 0 and shares[-1] == 1 and shares == sorted(shares)


def test_another_thread_may_steer_meanwhile(tiny_sae, demo_model, texts, built, tmp_path):
    stop = threading.Event()

    def steer() -> None:
        add = lambda x, hook: x + 10.0  # noqa: E731
        with sw.models.forward_hooks(demo_model, [("blocks.1.hook_resid_post", add)]):
            while not stop.is_set():
                demo_model(torch.arange(20)[None])

    thread = threading.Thread(target=steer)
    thread.start()
    try:
        again = FeatureIndex.build(tiny_sae, demo_model, texts, tmp_path / "f", max_tokens=N)
    finally:
        stop.set()
        thread.join()
    assert again.sql("from activations").equals(built.sql("from activations"))


def test_bad_inputs_are_sentences(tiny_sae, demo_model, texts, tmp_path):
    path = tmp_path / "f"
    narrow = sw.SAE(sw.SAEConfig(d_in=16, d_sae=32, k=4))
    with pytest.raises(ValueError, match=r"reads vectors of 16 numbers"):
        FeatureIndex.build(narrow, demo_model, texts, path, hook_name="blocks.2.hook_resid_post")
    with pytest.raises(ValueError, match="no hook named"):
        FeatureIndex.build(tiny_sae, demo_model, texts, path, hook_name="blocks.2.hook_resid_pots")
    with pytest.raises(ValueError, match="empty"):
        FeatureIndex.build(tiny_sae, demo_model, ["", ""], path)
    with pytest.raises(ValueError, match="max_tokens=0 leaves nothing to index"):
        FeatureIndex.build(tiny_sae, demo_model, texts, path, max_tokens=0)
    with pytest.raises(ValueError, match="memory_limit='plenty' is not a size"):
        FeatureIndex.build(tiny_sae, demo_model, texts, path, memory_limit="plenty")
    with pytest.raises(ValueError, match=r"context_size=9999"):
        FeatureIndex.build(tiny_sae, demo_model, texts, path, context_size=9999)
    broken = sw.SAE(tiny_sae.cfg)
    broken.metadata = tiny_sae.metadata
    with torch.no_grad():
        broken.b_enc[:] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinite"):
        FeatureIndex.build(broken, demo_model, texts, path, max_tokens=300)
    assert os.listdir(tmp_path) == []


def test_choose_draws_whole_contexts_and_cuts_the_last():
    mask = torch.arange(10)[None] < torch.tensor([10, 4, 7, 10, 10, 3])[:, None]
    counted = mask.clone()
    counted[:, 0] = False
    chosen, kept = choose(mask, counted, 20, seed=0)
    assert (np.diff(chosen) > 0).all()
    assert int((kept & counted)[chosen].sum()) == 20
    whole = [i for i in chosen if kept[i].equal(mask[i])]
    assert len(whole) >= len(chosen) - 1 and bool(kept[:, 0][chosen].all())
    everything, same = choose(mask, counted, None, seed=0)
    assert len(everything) == 6 and same.equal(mask)
