"""The dictionary itself: config, encode and decode, losses, fast kernels, file formats."""

from __future__ import annotations

from saewidgets.sae.config import SAEConfig, SAEMetadata
from saewidgets.sae.files import load_sae, save_sae
from saewidgets.sae.sae import SAE
from saewidgets.sae.signs import split_signs

__all__ = ["SAE", "SAEConfig", "SAEMetadata", "load_sae", "save_sae", "split_signs"]
