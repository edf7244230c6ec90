"""Building an index: one forward pass, shards as they come, then the sort.

`write_index` knows no model: it takes `Block`s from any source. `build_index` is that source for a language model.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from saewidgets.activations.contexts import Contexts, asked, pack
from saewidgets.activations.harvest import harvest
from saewidgets.activations.hooks import HookSite, check_fits
from saewidgets.features.folder import check_target, remove_leftovers, replacing
from saewidgets.features.inputs import text_hash
from saewidgets.features.query import Tables
from saewidgets.features.scan import Block, ScanWriter
from saewidgets.features.schema import FORMAT_VERSION, META, is_index, read_meta, write_meta
from saewidgets.features.sort import connect, sort_activations
from saewidgets.features.table import write_features, write_vocabulary
from saewidgets.features.weights import Unembedding, unembedding_of, weight_numbers
from saewidgets.models.tokens import fingerprint, vocabulary_of
from saewidgets.progress import Report, reporting

if TYPE_CHECKING:
    from saewidgets.models.tokens import Token
    from saewidgets.sae import SAE

_TOKENS_PER_FORWARD = 4096


@dataclass(frozen=True)
class Subject:
    """What is indexed: the weights that its numbers come from, and the words of its tokens."""

    W_enc: torch.Tensor
    W_dec: torch.Tensor
    unembedding: Unembedding | None
    tokens: Sequence[Token]
    """One per token id."""


def write_index(
    folder: Path,
    blocks: Iterable[tuple[Block, float]],
    subject: Subject,
    meta: dict[str, Any],
    *,
    seed: int,
    row_cap: int,
    memory_limit: str,
    report: Report,
) -> None:
    """Write a whole index into an empty folder.

    `blocks` come with the share of the scan that is done after each. `meta` is what the source knows; the counts of
    what was scanned are added to it, and `meta.json` is written last.
    """
    scan = ScanWriter(folder, subject.W_dec.shape[0], len(subject.tokens))
    report("scanning the text", 0.0)
    try:
        for block, done in blocks:
            scan.add(block)
            report("scanning the text", min(done, 1.0))
        if not scan.n_tokens:
            raise ValueError("no token position is left to index: every one is padding or an excluded position")
        scan.finish()
    finally:
        scan.close()
    report("scanning the text", 1.0)

    report("reading the weights", 0.0)
    weights = weight_numbers(
        subject.W_enc, subject.W_dec, subject.unembedding, lambda done: report("reading the weights", done)
    )
    report("sorting the activations", 0.0)
    numbers = sort_activations(
        scan,
        folder,
        seed=seed,
        row_cap=row_cap,
        memory_limit=memory_limit,
        report=lambda done: report("sorting the activations", done),
    )
    write_features(folder, scan, numbers, weights, subject.tokens)
    write_vocabulary(folder, subject.tokens, scan.token_counts)
    shutil.rmtree(scan.shards)
    shutil.rmtree(folder / "spill", ignore_errors=True)
    counted = {
        "n_tokens": scan.n_tokens,
        "n_items": scan.n_items,
        "n_contexts": scan.n_contexts,
        "n_activations": scan.n_activations,
        "n_stored": int(numbers.stored.sum()),
        "d_sae": len(scan.counts),
    }
    write_meta(folder, {**meta, **counted})


def build_index(
    sae: SAE,
    model: Any,
    texts: Any,
    path: Path,
    *,
    hook_name: str | None,
    context_size: int | None,
    max_tokens: int | None,
    seed: int,
    overwrite: bool,
    memory_limit: str,
    row_cap: int,
    on_progress: Report | None,
) -> None:
    """See `FeatureIndex.build`. Afterwards `path` holds the index, built now or before."""
    for name, value in (("max_tokens", max_tokens), ("row_cap", row_cap), ("context_size", context_size)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} leaves nothing to index; it must be at least 1")
    connect(path.parent, memory_limit).close()  # a bad limit is said now, not after the scan
    if isinstance(texts, Iterator):
        texts = list(texts)  # read twice: for its hash, and for the model
    site = check_fits(sae, model, hook_name)
    sae = sae.clone()  # a run may be writing it
    metadata = sae.metadata
    n_ctx = int(model.cfg.n_ctx)
    size = context_size or min(metadata.context_size or 128, n_ctx)
    if size > n_ctx:
        raise ValueError(f"context_size={size} is longer than the model's context of {n_ctx} tokens")

    inputs = {
        "format_version": FORMAT_VERSION,
        "SAE": sae.fingerprint(),
        "model": fingerprint(model),
        "texts": text_hash(texts),
        "hook_name": site.hook_name,
        "context_size": size,
        "prepend_bos": metadata.prepend_bos,
        "excluded_positions": list(metadata.excluded_positions),
        "max_tokens": max_tokens,
        "seed": seed,
        "row_cap": row_cap,
    }
    if is_index(path):
        differs = difference(path, inputs)
        if not differs and _opens(path):
            remove_leftovers(path)
            return
        if differs and not overwrite:
            raise FileExistsError(
                f"{str(path)!r} already holds another feature index ({', '.join(differs)} differ); "
                "give overwrite=True to replace it, or another path"
            )
        overwrite = True  # asked for, or the same index with damaged files
    check_target(path, overwrite)

    meta = {
        "created_by": f"saewidgets {_version()}",
        "inputs": inputs,
        "model_name": getattr(model.cfg, "model_name", None) or metadata.model_name,
        "hook_name": site.hook_name,
        "architecture": sae.cfg.architecture,
        "context_size": size,
        "sae": {"cfg": sae.cfg.to_dict(), "metadata": metadata.to_dict()},
    }
    with reporting("Building the feature index", on_progress) as report, replacing(path, overwrite) as folder:
        contexts = pack(model, texts, size, prepend_bos=metadata.prepend_bos)
        write_index(
            folder,
            _blocks(sae, model, site, contexts, max_tokens, seed),
            Subject(sae.W_enc, sae.W_dec, unembedding_of(model), _tokens_of(model)),
            meta,
            seed=seed,
            row_cap=row_cap,
            memory_limit=memory_limit,
            report=report,
        )


def difference(path: Path, inputs: dict[str, Any]) -> list[str]:
    """Names of the inputs in which the index at `path` differs."""
    held = json.loads((path / META).read_text("utf-8")).get("inputs")
    if not isinstance(held, dict):
        return ["its inputs"]
    return [name for name, value in inputs.items() if held.get(name) != value]


def _opens(path: Path) -> bool:
    try:
        read_meta(path)
        Tables(path)
    except (OSError, ValueError):
        return False
    return True


def choose(mask: torch.Tensor, counted: torch.Tensor, max_tokens: int | None, seed: int) -> tuple[Any, torch.Tensor]:
    """Which contexts are scanned, in the text's order, and their mask: a seeded draw of max_tokens positions.

    `mask` and `counted` are [n, context_size] bool: positions that are text, and those that are asked as well. The
    last context drawn is cut where max_tokens is reached.
    """
    if max_tokens is None or int(counted.sum()) <= max_tokens:
        return np.arange(len(mask)), mask
    order = np.random.default_rng(seed).permutation(len(mask))
    totals = counted.sum(1).numpy()[order].cumsum()
    last = int(np.searchsorted(totals, max_tokens))
    chosen = order[: last + 1]
    mask = mask.clone()
    left = max_tokens - (int(totals[last - 1]) if last else 0)
    mask[chosen[-1]] &= counted[chosen[-1]].cumsum(0) <= left
    return np.sort(chosen), mask


def _blocks(
    sae: SAE, model: Any, site: HookSite, contexts: Contexts, max_tokens: int | None, seed: int
) -> Iterator[tuple[Block, float]]:
    tokens, mask = contexts.tokens.cpu(), contexts.mask.cpu()
    chosen, mask = choose(mask, asked(mask, sae.metadata.excluded_positions), max_tokens, seed)
    docs = contexts.doc.cpu().numpy()
    per_forward = max(1, _TOKENS_PER_FORWARD // tokens.shape[1])
    for start in range(0, len(chosen), per_forward):
        ids = chosen[start : start + per_forward]
        x = harvest(model, tokens[ids], site)
        shown = mask[ids]
        read = asked(shown, sae.metadata.excluded_positions)
        scanned = read[shown]
        with torch.no_grad():
            values, features = sae.encode_sparse(x[read.to(x.device)])
        if not bool(torch.isfinite(values).all()):
            raise ValueError(
                f"the activations at {site.hook_name} or the SAE's weights gave NaN or infinite values; check the "
                "weights, and the model's dtype (float16 overflows in some models: load it as float32 or bfloat16)"
            )
        if bool((values < 0).any()):
            raise ValueError(_signs_sentence(sae))
        active = values > 0
        row_of = scanned.nonzero()[:, 0]  # from the rows that were asked to the rows of the block
        context, position = shown.nonzero(as_tuple=True)
        yield (
            Block(
                tokens=tokens[ids][shown].numpy(),
                contexts=start + context.numpy(),
                positions=position.numpy(),
                docs=docs[ids][context.numpy()],
                scanned=scanned.numpy(),
                rows=row_of[active.nonzero()[:, 0].cpu()].numpy(),
                features=features[active].cpu().numpy(),
                values=values[active].float().cpu().numpy(),
            ),
            (start + len(ids)) / len(chosen),
        )


def _signs_sentence(sae: SAE) -> str:
    """What to do with codes that have signs: an index ranks and counts activations above 0."""
    name, n = sae.cfg.architecture, sae.cfg.d_sae
    if sae.architecture.without_signs(sae.cfg) is None:
        return f"{name!r} gave activations below 0, and an index holds those above: it cannot be indexed as it is"
    return (
        f"the features of {name!r} have two sides, and an index holds activations above 0. Index each side as a "
        f"feature of its own: FeatureIndex.build(sw.split_signs(sae), ...), where {n} + i is the negative side of "
        "feature i"
    )


def _tokens_of(model: Any) -> list[Token]:
    vocabulary = vocabulary_of(model)
    return vocabulary.display(range(len(vocabulary)))


def _version() -> str:
    try:
        return version("saewidgets")
    except PackageNotFoundError:  # a checkout that was not installed
        return "from a checkout"
