"""Score every SAE in OUT/saes on held-out text and print the table: mean of the seeds, and how far they lie apart.

python tests/benchmarks/quality/table.py OUT [--vectors 25000]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from pathlib import Path

import torch
from peers import D_SAE, K
from safetensors.torch import load_file

import saewidgets as sw

SCORES = ("l0", "explained_variance", "ce_loss_recovered", "dead_fraction")


def load(folder: Path, about: dict) -> sw.SAE:
    """Ours and sae-lens's as they were saved; sparsify's as the topk SAE that it is (it encodes x - b_dec too)."""
    sparsify = folder / "layer" / "sae.safetensors"
    if not sparsify.exists():
        return sw.load_sae(folder)
    tensors = load_file(sparsify)
    sae = sw.SAE(sw.SAEConfig(d_in=about["d_in"], d_sae=D_SAE, k=K, normalize="none"))
    with torch.no_grad():
        sae.W_enc.copy_(tensors["encoder.weight"].T)
        sae.b_enc.copy_(tensors["encoder.bias"])
        sae.W_dec.copy_(tensors["W_dec"])
        sae.b_dec.copy_(tensors["b_dec"])
    return sae


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--vectors", type=int, default=25_000)
    asked = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    about = json.loads((asked.out / "about.json").read_text())
    model = sw.load_model() if about["model"] == "embedded" else sw.load_model(about["model"])
    texts = sw.load_texts(split="held_out")
    rows: dict[str, list[tuple[float, ...]]] = {}
    for folder in sorted((asked.out / "saes").iterdir()):
        if not (folder / "about.json").exists():
            continue
        # scores are kept for these weights and this much text only
        weights = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(folder.rglob("*.safetensors"))))
        known = folder / f"scores-{asked.vectors}-{weights.hexdigest()[:12]}.json"
        if not known.exists():
            scored = sw.evaluate(
                load(folder, about), model, texts,
                hook_name=about["hook_name"], context_size=128, max_tokens=asked.vectors,
            )  # fmt: skip
            known.write_text(json.dumps({name: getattr(scored, name) for name in SCORES}))
        scores, trained = json.loads(known.read_text()), json.loads((folder / "about.json").read_text())
        values = (*(scores[name] for name in SCORES), trained["cpu_seconds"])
        rows.setdefault(folder.name.rsplit("-", 1)[0], []).append(values)
    print("| trainer | seeds | L0 | explained variance | CE loss recovered | dead | CPU s |")
    print("|---|---|---|---|---|---|---|")
    order = sorted(rows, key=lambda name: (name.split("@")[0].rsplit("-", 1)[1], -rows[name][0][1]))
    for name in order:
        columns = list(zip(*rows[name], strict=True))
        l0, ev, ce, dead, seconds = (sum(column) / len(column) for column in columns)
        apart = [max(column) - min(column) for column in columns]
        print(
            f"| {name} | {len(rows[name])} | {l0:.1f} ({apart[0]:.1f}) | {ev:.4f} ({apart[1]:.4f}) | "
            f"{ce:.4f} ({apart[2]:.4f}) | {dead:.1%} ({apart[3]:.1%}) | {seconds:.0f} |"
        )


if __name__ == "__main__":
    main()
