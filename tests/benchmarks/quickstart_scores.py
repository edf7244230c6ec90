"""Held-out scores of the SAE that notebooks/01_quickstart.ipynb trains, and of random directions put through the same.

    python tests/benchmarks/quickstart_scores.py
"""

from __future__ import annotations

import saewidgets as sw


def main() -> None:
    model = sw.load_model()
    acts = sw.ActivationStream(
        model, sw.load_texts(), hook_name="blocks.2.hook_resid_post", context_size=128, batch_size=2048, seed=0
    )
    sae = sw.SAE(sw.SAEConfig(d_in=acts.d_in, d_sae=2048, architecture="topk", k=32))
    run = sw.train(sae, acts, sw.TrainConfig(n_tokens=400_000))
    run.wait()
    held_out = sw.load_texts(split="held_out")
    print("the quickstart's SAE:", sw.evaluate(sae, model, held_out))
    print("random directions in its place:", sw.evaluate(sw.random_decoder(sae), model, held_out))
    print(f"dead in its last window: {run.metrics.dead_fraction.iloc[-1]:.2%}")


if __name__ == "__main__":
    main()
