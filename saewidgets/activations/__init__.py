"""Reading and writing at a hook: where hooks are, contexts, the harvest, the stream, the splice.

Everything that runs the language model to get activations goes through here, and takes the model's lock.
"""

from __future__ import annotations

from saewidgets.activations.blocks import BrokenOff
from saewidgets.activations.cache import ActivationCache
from saewidgets.activations.contexts import Contexts, pack
from saewidgets.activations.harvest import harvest
from saewidgets.activations.hooks import HookSite, check_fits, hook_site, target_of
from saewidgets.activations.splice import SpliceScorer, SpliceScores, splice_scores
from saewidgets.activations.stream import ActivationStream

__all__ = [
    "ActivationCache",
    "ActivationStream",
    "BrokenOff",
    "Contexts",
    "HookSite",
    "SpliceScorer",
    "SpliceScores",
    "check_fits",
    "harvest",
    "hook_site",
    "pack",
    "splice_scores",
    "target_of",
]
