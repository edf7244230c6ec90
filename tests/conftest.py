"""What many tests stand on: the embedded model, its SAE and text, and a small random SAE on the same hook."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import saewidgets as sw

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@pytest.fixture(scope="session")
def demo_model() -> TransformerBridge:
    """The embedded model. Read-only for every test: shared by all of them."""
    return sw.load_model()


@pytest.fixture(scope="session")
def demo_sae() -> sw.SAE:
    """The SAE that comes with it."""
    return sw.load_sae()


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """200 stories of the embedded text."""
    return sw.load_texts()[:200]


@pytest.fixture(scope="session")
def tiny_sae() -> sw.SAE:
    """An untrained SAE with unit-norm decoder rows, for what needs features but not good ones."""
    sae = sw.SAE(sw.SAEConfig(d_in=288, d_sae=512, k=8, seed=0))
    sae.metadata = sae.metadata.replace(hook_name="blocks.2.hook_resid_post", context_size=128)
    return sae
