"""Whether sae-lens computes what we do with each architecture that `save_sae` writes under one of its names.

sae-lens cannot be installed beside TransformerLens 4, so it takes two environments, and a folder between them:

    python tests/interop/check_architectures.py write /tmp/saes        # here
    python tests/interop/check_architectures.py check /tmp/saes        # where sae-lens==6.54.12 is installed

The second prints, for each SAE, sae-lens's class for it and the largest difference in the code and the reconstruction.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

EXPECTED = "expected.safetensors"
D_IN, D_SAE, N = 12, 40, 20


def write(out: Path) -> None:
    from saewidgets.sae import SAE, SAEConfig, save_sae
    from saewidgets.sae.architectures import architectures, get_architecture

    known = [name for name in architectures() if get_architecture(name).saved_as]
    cases = [(name, "expected_norm") for name in known]
    cases += [("relu", normalize) for normalize in ("unit_norm", "constant_norm", "layer_norm")]
    for name, normalize in cases:
        k = {"k": 4} if "k" in (get_architecture(name).reads or ()) else {}
        sae = SAE(SAEConfig(d_in=D_IN, d_sae=D_SAE, architecture=name, normalize=normalize, **k))
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in sae.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
            for buffer in sae.buffers():
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
            x = torch.randn(N, D_IN, generator=generator) * torch.linspace(0.1, 30, N).unsqueeze(1)
            folder = save_sae(sae, out / f"{name}-{normalize}")
            save_file({"x": x, "f": sae.encode(x), "xhat": sae(x)}, folder / EXPECTED)


def check(out: Path) -> None:
    from sae_lens import SAE

    for folder in sorted(out.iterdir()):
        sae, expected = SAE.load_from_disk(folder), load_file(folder / EXPECTED)
        with torch.no_grad():
            f = sae.encode(expected["x"])
            differences = [(f - expected["f"]).abs().max(), (sae.decode(f) - expected["xhat"]).abs().max()]
        largest = float(expected["xhat"].abs().max())
        print(f"{folder.name:28s} {type(sae).__name__:14s} {float(max(differences)):.1e} of {largest:.0f}")


if __name__ == "__main__":
    {"write": write, "check": check}[sys.argv[1]](Path(sys.argv[2]))
