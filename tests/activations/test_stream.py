"""The stream: a pure function of (seed, epoch, block) that loses nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import saewidgets as sw
from saewidgets.activations import harvest, pack

HOOK = "blocks.2.hook_resid_post"


@pytest.fixture(scope="module")
def acts(demo_model: Any, texts: list[str]) -> sw.ActivationStream:
    return sw.ActivationStream(
        demo_model, texts[:24], HOOK, context_size=32, batch_size=64, block_batches=7, contexts_per_forward=5
    )


def sorted_rows(x: torch.Tensor) -> torch.Tensor:
    """Rows in an order of their own: by a sum that tells them apart."""
    return x[torch.argsort(x.double() @ torch.linspace(1, 2, x.shape[1], dtype=torch.float64))]


def test_it_iterates_batches_and_says_what_they_are(acts: sw.ActivationStream) -> None:
    batches = list(acts)
    assert len(batches) == len(acts) == acts.n_batches == acts.n_vectors // 64 > 14
    assert {(batch.shape, batch.dtype) for batch in batches} == {(torch.Size([64, 288]), torch.float32)}
    assert (acts.d_in, acts.hook_name, acts.batch_size) == (288, HOOK, 64)
    assert acts.metadata == sw.SAEMetadata(
        model_name="saewidgets-demo", hook_name=HOOK, context_size=32, prepend_bos=True, excluded_positions=(0,)
    )
    assert repr(acts).startswith("ActivationStream('blocks.2.hook_resid_post', d_in=288, ")


def test_seeking_gives_what_skipping_gives(acts: sw.ActivationStream) -> None:
    whole = list(acts.batches(epoch=1))
    for start in (0, 1, 6, 7, 8, len(whole) - 1, len(whole)):
        sought = list(acts.batches(epoch=1, start=start))
        assert len(sought) == len(whole) - start
        assert all(torch.equal(a, b) for a, b in zip(sought, whole[start:], strict=True))
    with pytest.raises(ValueError, match="start=9999 is out of range"):
        acts.batches(start=9999)


def test_a_reader_of_less_than_a_block_waits_for_no_more_than_it_takes(
    acts: sw.ActivationStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    fill = sw.ActivationStream.fill

    def counted(self: Any, epoch: int, memory: Any, low: int, high: int, **options: Any) -> None:
        read.append(high - low)
        fill(self, epoch, memory, low, high, **options)

    monkeypatch.setattr(sw.ActivationStream, "fill", counted)
    usual = list(acts)
    longest, read[:] = read[0], []
    short = acts.batches(takes=3 * 64 - 5)
    few = [next(short) for _ in range(3)]
    assert read == [3 * 64] and longest >= 7 * 64
    front = torch.cat(usual[: longest // 64])
    assert all((front - row).abs().amax(1).min() < 1e-3 for batch in few for row in batch[:3])  # the same text's
    assert torch.equal(torch.cat(few[1:]), torch.cat([*acts.batches(start=1, takes=3 * 64 - 5)][:2]))  # sought
    # who goes on after all finds the rest, each vector once
    all_of_it = [*few, *short]
    assert torch.allclose(sorted_rows(torch.cat(all_of_it)), sorted_rows(torch.cat(usual)), atol=1e-3)
    for takes in (None, longest, 10 * longest):
        assert all(torch.equal(a, b) for a, b in zip(acts.batches(takes=takes), usual, strict=True))


def test_a_block_that_is_cut_takes_no_more_memory_than_its_vectors(
    acts: sw.ActivationStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    memory = sw.ActivationStream.memory

    def counted(self: Any, rows: int) -> Any:
        held.append(rows)
        return memory(self, rows)

    monkeypatch.setattr(sw.ActivationStream, "memory", counted)
    assert len(list(acts)) == acts.n_batches
    (usual,) = held  # of the largest block, for all
    short, held[:] = acts.batches(takes=3 * 64 - 5), []
    for _ in range(3):
        next(short)
    assert held == [3 * 64] and usual >= 7 * 64
    assert len(list(short)) == acts.n_batches - 3 and held[-1] == usual  # who goes on after all
    held.clear()
    next(acts.batches(start=acts.n_batches - 1))
    assert 7 * 64 <= held[0] <= usual  # the end of the text


def test_two_iterations_at_once_do_not_disturb_each_other(acts: sw.ActivationStream) -> None:
    expected = list(acts)
    one, two = iter(acts), iter(acts)
    for i in range(len(expected)):
        assert torch.equal(next(one), expected[i])
        if i % 2:
            assert torch.equal(next(two), expected[i // 2])


def test_seed_and_epoch_change_the_order(demo_model: Any, texts: list[str], acts: sw.ActivationStream) -> None:
    first = next(acts.batches(0))
    assert torch.equal(first, next(acts.batches(0)))
    assert not torch.equal(first, next(acts.batches(1)))
    other = sw.ActivationStream(
        demo_model, texts[:24], HOOK, context_size=32, batch_size=64, block_batches=7, contexts_per_forward=5, seed=1
    )
    assert not torch.equal(first, next(iter(other)))


def test_every_vector_of_the_text_comes_once(demo_model: Any, texts: list[str]) -> None:
    few = texts[:4]
    acts = sw.ActivationStream(demo_model, few, HOOK, context_size=32, batch_size=1, block_batches=100)
    packed = pack(demo_model, few, 32)
    held_out = len(acts.held_out_tokens)
    packed = packed[: len(packed) - held_out]
    wanted = packed.mask.clone()
    wanted[:, 0] = False
    expected = torch.cat([harvest(demo_model, row[None], acts.site)[0] for row in packed.tokens])[wanted.flatten()]
    found = torch.cat(list(acts))
    assert found.shape == expected.shape and acts.n_vectors == len(expected)
    assert torch.allclose(sorted_rows(found), sorted_rows(expected), atol=1e-4)


def test_blocks_mix_contexts_and_a_block_larger_than_the_text_becomes_the_text(demo_model: Any) -> None:
    # each document repeats one token, and at the embedding a vector says which token it is of
    documents = [[1000 + i] * 31 for i in range(64)]
    embedding = demo_model.original_model.get_input_embeddings().weight.detach()[1000:1064]

    def documents_of(batch: torch.Tensor) -> list[int]:
        return torch.cdist(batch, embedding).argmin(1).tolist()

    def batches(block_batches: int) -> list[list[int]]:
        acts = sw.ActivationStream(
            demo_model, documents, "hook_embed", context_size=32, batch_size=31, block_batches=block_batches
        )
        return [documents_of(batch) for batch in acts]

    alone, blocks, whole = batches(1), batches(21), batches(10_000)
    assert len(alone) == len(blocks) == len(whole) == 63  # one context is held out
    assert all(len(set(batch)) == 1 for batch in alone)  # a block of one batch is one context
    for start in range(0, 63, 21):
        mixed = blocks[start : start + 21]
        assert len({document for batch in mixed for document in batch}) == 21
        assert all(len(set(batch)) > 10 for batch in mixed)
    assert len({document for batch in whole[:5] for document in batch}) > 50
    assert sorted(sum(whole, [])) == sorted(sum(alone, []))


def test_the_held_out_contexts_are_of_other_documents(demo_model: Any, texts: list[str]) -> None:
    acts = sw.ActivationStream(demo_model, texts, HOOK, context_size=32)
    packed = pack(demo_model, texts, 32)
    held_out = len(acts.held_out_tokens)
    assert 0 < held_out <= 64
    assert torch.equal(acts.held_out_tokens, packed.tokens[-held_out:])
    assert packed.doc[-held_out] != packed.doc[-held_out - 1]


def test_an_excerpt_is_held_out_text_first_and_no_more_than_asked_for(demo_model: Any, texts: list[str]) -> None:
    acts = sw.ActivationStream(demo_model, texts[:24], HOOK, context_size=32)
    held_out = acts.held_out
    n = int((held_out.mask.sum(1) - 1).sum())  # position 0 gives none
    some = acts.excerpt(n + 40)
    assert torch.equal(some.tokens[: len(held_out)], held_out.tokens)
    assert len(some) > len(held_out) and n < int((some.mask.sum(1) - 1).sum()) <= n + 40
    rest = pack(demo_model, texts[:24], 32).tokens[: len(some) - len(held_out)]
    assert torch.equal(some.tokens[len(held_out) :], rest)
    for part in (some.tokens, some.mask, some.doc):  # the text that was not asked for is not kept alive by it
        assert part.untyped_storage().nbytes() == part.numel() * part.element_size()
    assert len(acts.excerpt(1)) == 1
    whole = acts.excerpt(10**9)
    assert int((whole.mask.sum(1) - 1).sum()) == n + acts.n_vectors


def test_position_0_is_left_out_unless_told_otherwise(demo_model: Any, texts: list[str]) -> None:
    def norms(**options: Any) -> torch.Tensor:
        acts = sw.ActivationStream(demo_model, texts[:8], HOOK, context_size=32, batch_size=1, **options)
        return torch.cat(list(acts)).norm(dim=1)

    packed = pack(demo_model, texts[:8], 32)
    bos = harvest(demo_model, packed.tokens[:1], sw.ActivationStream(demo_model, texts[:8], HOOK, 32).site)[0, 0].norm()
    assert not torch.isclose(norms(), bos, rtol=1e-3).any()
    assert torch.isclose(norms(exclude_positions=()), bos, rtol=1e-3).any()


def test_z_is_flattened_and_any_hook_streams(demo_model: Any, texts: list[str]) -> None:
    for hook in ("blocks.2.attn.hook_z", "blocks.1.hook_mlp_out"):
        acts = sw.ActivationStream(demo_model, texts[:4], hook, context_size=32, batch_size=16)
        assert next(iter(acts)).shape == (16, acts.d_in) == (16, 288)


def test_short_texts_are_padded_and_only_all_too_short_is_refused(demo_model: Any) -> None:
    acts = sw.ActivationStream(demo_model, ["A cat.", "A dog sat."], HOOK)
    (batch,) = list(acts)
    assert len(batch) == acts.n_vectors < acts.batch_size
    bos = demo_model.tokenizer.bos_token_id
    with pytest.raises(ValueError, match=r"too short: with exclude_positions=\(0,\) no token gives"):
        sw.ActivationStream(demo_model, [[5]], HOOK, prepend_bos=False)
    with pytest.raises(ValueError, match="texts are empty"):
        sw.ActivationStream(demo_model, [[bos]], HOOK)
    with pytest.raises(ValueError, match="batch_size=0 is not possible"):
        sw.ActivationStream(demo_model, ["A cat."], HOOK, batch_size=0)


def test_ce_loss_recovered_is_measured_on_the_held_out_contexts(
    demo_model: Any, texts: list[str], tiny_sae: sw.SAE
) -> None:
    acts = sw.ActivationStream(demo_model, texts, HOOK, context_size=32)
    assert 0.0 < acts.ce_loss_recovered(tiny_sae) < 1.0
    short = sw.ActivationStream(demo_model, ["A cat."], HOOK)
    assert torch.isnan(torch.tensor(short.ce_loss_recovered(tiny_sae)))


def test_fingerprints_name_what_decides_the_batches(
    demo_model: Any, texts: list[str], acts: sw.ActivationStream
) -> None:
    def stream(texts: list[str], **options: Any) -> sw.ActivationStream:
        sizes = {"context_size": 32, "batch_size": 64, "block_batches": 7, "contexts_per_forward": 5, **options}
        return sw.ActivationStream(demo_model, texts, HOOK, **sizes)

    def differing(other: sw.ActivationStream) -> list[str]:
        ours, theirs = acts.fingerprints(), other.fingerprints()
        assert ours.keys() == theirs.keys()
        return [name for name in ours if ours[name] != theirs[name]]

    assert differing(stream(texts[:24])) == []
    assert differing(stream([*texts[:23], texts[23] + " x"])) == ["texts"]
    assert differing(stream(texts[:24], seed=1)) == ["seed"]
    assert differing(stream(texts[:24], batch_size=32)) == ["batch_size"]
    weight = next(demo_model.original_model.parameters())
    before = acts.fingerprints()
    with torch.no_grad():
        kept = weight[0, 0].clone()
        weight[0, 0] += 1
        changed = acts.fingerprints()
        weight[0, 0] = kept
    assert [name for name in before if before[name] != changed[name]] == ["model weights"]


def test_a_word_that_is_not_there_and_one_that_is_left_out_are_named(demo_model: Any, texts: list[str]) -> None:
    with pytest.raises(
        TypeError, match=r"no option 'layer'\. Give 'hook_name': sw\.ActivationStream\(.*\)\. Its options"
    ):
        sw.ActivationStream(demo_model, texts, layer=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"no option 'batchsize'\. Did you mean 'batch_size'\?"):
        sw.ActivationStream(demo_model, texts, HOOK, batchsize=8)  # type: ignore[call-arg]
    with pytest.raises(
        TypeError, match=r"ActivationStream needs hook_name: sw\.ActivationStream\(model, texts, hook_name"
    ):
        sw.ActivationStream(demo_model, texts=texts)  # type: ignore[call-arg]
