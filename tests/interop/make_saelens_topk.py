"""Writes tests/interop/saelens_topk/: small SAEs saved by sae-lens itself, and what sae-lens computes with them.

It needs an environment of its own (sae-lens cannot be installed beside TransformerLens 4):
pip install torch==2.13.0, then sae-lens==6.54.12. Given a folder that our `save_sae` wrote as second argument, it also
loads that with sae-lens and checks the outputs in its `expected.safetensors`.

    python tests/interop/make_saelens_topk.py tests/interop/saelens_topk [folder]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

EXPECTED = "expected.safetensors"
D_IN, D_SAE, K = 16, 64, 4


def write(folder: Path, **options: object) -> None:
    from sae_lens import TopKSAE, TopKSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    generator = torch.Generator().manual_seed(len(folder.name))
    metadata = SAEMetadata(
        model_name="tiny", hook_name="blocks.1.hook_resid_post", context_size=64, prepend_bos=True,
        exclude_special_tokens=False, model_from_pretrained_kwargs={"center_writing_weights": True},
    )  # fmt: skip
    sae = TopKSAE(TopKSAEConfig(d_in=D_IN, d_sae=D_SAE, k=K, metadata=metadata, **options))
    with torch.no_grad():
        for name, parameter in sorted(sae.named_parameters()):
            scale = 0.3 if name.startswith("b_") else 1.0
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        x = torch.randn(32, D_IN, generator=generator)
        f = sae.encode(x)
        sae.save_model(folder)
        save_file({"x": x, "f": f, "xhat": sae.decode(f)}, folder / EXPECTED)


def check(folder: Path) -> None:
    from sae_lens import SAE

    sae = SAE.load_from_disk(folder)
    expected = load_file(folder / EXPECTED)
    with torch.no_grad():
        f = sae.encode(expected["x"])
        worst = max((f - expected["f"]).abs().max(), (sae.decode(f) - expected["xhat"]).abs().max())
    print(f"{type(sae).__name__}, metadata {sae.cfg.metadata.to_dict()}")
    print(f"largest difference between sae-lens and saewidgets on {folder}: {float(worst):.1e}")


if __name__ == "__main__":
    out = Path(sys.argv[1])
    write(out / "plain", rescale_acts_by_decoder_norm=False)
    write(out / "rescaled", rescale_acts_by_decoder_norm=True)
    write(out / "no_b_dec", rescale_acts_by_decoder_norm=False, apply_b_dec_to_input=False)
    for ours in sys.argv[2:]:
        check(Path(ours))
