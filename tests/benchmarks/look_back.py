"""How long a feature's examples take at one snapshot, against the code of all tokens.

    OMP_NUM_THREADS=1 python tests/benchmarks/look_back.py

CPU-seconds for one feature of an SAE of d_in 288, d_sae 2,304, and of d_in 768, d_sae 16,384, on 20,000 random vectors
in half precision: the search of `strongest`, the same for a feature whose bias makes it seldom active, and
`encode_sparse` of all.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

import saewidgets as sw
from saewidgets.sae.strongest import strongest

N, EXAMPLES = 20_000, 64


def seconds(work: Callable[[], object], times: int) -> float:
    """CPU-seconds of one call."""
    work()
    began = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - began) / times


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    for d_in, d_sae in ((288, 2304), (768, 16_384)):
        x = torch.randn(N, d_in, generator=torch.Generator().manual_seed(0)).half()
        whole = None
        for name in ("topk", "batchtopk", "jumprelu", "gated"):
            k = {"k": 32} if name in ("topk", "batchtopk") else {}
            sae = sw.SAE(sw.SAEConfig(d_in=d_in, d_sae=d_sae, architecture=name, **k)).requires_grad_(False)
            if name == "topk":
                whole = seconds(lambda sae=sae, x=x: sae.encode_sparse(x.float()), 1)
                print(f"d_in {d_in}, d_sae {d_sae}: the code of all {N:,} vectors {whole:.3f} CPU-s")
            live = seconds(lambda sae=sae, x=x: strongest(sae, x, 7, EXAMPLES), 3)
            sae.b_enc[7] = -2.0
            weak = seconds(lambda sae=sae, x=x: strongest(sae, x, 7, EXAMPLES), 1)
            print(f"  {name:10} strongest {live:.3f}, of a weak feature {weak:.3f}")


if __name__ == "__main__":
    main()
