"""How long a feature's examples take at one snapshot, against the code of all tokens.

    OMP_NUM_THREADS=1 python tests/benchmarks/look_back.py

CPU-seconds for one feature of an SAE of d_in 288, d_sae 2,304, and of d_in 768, d_sae 16,384, on 20,000 random vectors
in half precision: the search for 8 places, the same for a feature that is active on about one in 2,000 (its encoder
row is made so much shorter), both with the windows' values, and `encode_sparse` of all.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

import saewidgets as sw
from saewidgets.sae.strongest import active, strongest

N, EXAMPLES, WINDOWS = 20_000, 8, 520


def seconds(work: Callable[[], object], times: int) -> float:
    """CPU-seconds of one call."""
    work()
    began = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - began) / times


def search(sae: sw.SAE, x: torch.Tensor) -> int:
    """What `TextSample.examples` does with vectors; gives how many are found."""
    n = 0
    for values, _ in strongest(sae, x, 7):
        n += len(values)
        if n >= EXAMPLES:
            break
    active(sae, x[:WINDOWS], 7)
    return n


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    for d_in, d_sae in ((288, 2304), (768, 16_384)):
        x = torch.randn(N, d_in, generator=torch.Generator().manual_seed(0)).half()
        for name in ("topk", "batchtopk", "jumprelu", "gated"):
            k = {"k": 32} if name in ("topk", "batchtopk") else {}
            sae = sw.SAE(sw.SAEConfig(d_in=d_in, d_sae=d_sae, architecture=name, **k)).requires_grad_(False)
            if name == "batchtopk":
                sae.get_buffer("threshold").fill_(2.0)
            live = seconds(lambda sae=sae, x=x: search(sae, x), 2)
            sae.W_enc[:, 7] *= {"topk": 0.75, "batchtopk": 0.6, "jumprelu": 0.15, "gated": 1.0}[name]
            if name == "gated":
                sae.b_enc[7] = -3.3
            weak = seconds(lambda sae=sae, x=x: search(sae, x), 2)
            n = len(active(sae, x, 7)[0])
            print(f"d_in {d_in}, d_sae {d_sae} {name:10} {live:.3f}, active on {n} of {N:,}: {weak:.3f}", flush=True)
        whole = seconds(lambda sae=sae, x=x: sae.encode_sparse(x[:1000].float()), 1) * N / 1000
        print(f"d_in {d_in}, d_sae {d_sae}: the code of all {N:,} vectors {whole:.2f} CPU-s")


if __name__ == "__main__":
    main()
