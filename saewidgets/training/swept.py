"""One SAE of a sweep, by itself."""

from __future__ import annotations

from typing import Any

from saewidgets.sae import SAE, SAEConfig, SAEMetadata
from saewidgets.training.loop import Loop


class SweptSAE:
    """What a `TrainingRun` tells of its SAE, of one SAE of a sweep."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    @property
    def cfg(self) -> SAEConfig:
        """Its config."""
        return self._loop.sae.cfg

    @property
    def sae(self) -> SAE:
        """A frozen copy, taken between two steps."""
        return self._loop.sae.clone()

    @property
    def metadata(self) -> SAEMetadata:
        """Where the activations come from."""
        return self._loop.vectors.metadata

    @property
    def acts(self) -> Any:
        """The activations that the sweep trains on."""
        return self._loop.vectors.acts

    @property
    def snapshots(self) -> list[int]:
        """The steps that `sae_at` knows."""
        return self._loop.snapshots.steps

    def sae_at(self, step: int) -> SAE:
        """A frozen copy of it as it was after `step` steps. ValueError for one at which there is no snapshot."""
        return self._loop.snapshots.sae_at(step)
