"""Train sparse autoencoders on a language model inside a notebook, look at what they learned, and steer with it.

Every name below is imported when it is first asked for: `import saewidgets` costs nothing and loads neither torch nor
TransformerLens.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saewidgets.activations import ActivationCache, ActivationStream
    from saewidgets.evaluation import Evaluation, evaluate, random_decoder
    from saewidgets.features import FeatureIndex
    from saewidgets.interventions import Ablate, Add, Clamp, Scale, steering
    from saewidgets.models import load_model, load_texts
    from saewidgets.sae import SAE, SAEConfig, SAEMetadata, load_sae, save_sae, split_signs
    from saewidgets.training import (
        SweepRun,
        TrainConfig,
        TrainingRun,
        TrainJob,
        plan,
        resume_training,
        sweep,
        train,
    )
    from saewidgets.widgets import (
        FeatureBrowser,
        FeatureDashboard,
        SteeringPanel,
        SweepMonitor,
        TokenHeatmap,
        TrainingMonitor,
    )

__version__ = "0.1.0"

_ROOM_OF = {
    "SAE": "sae",
    "SAEConfig": "sae",
    "SAEMetadata": "sae",
    "load_sae": "sae",
    "save_sae": "sae",
    "split_signs": "sae",
    "load_model": "models",
    "load_texts": "models",
    "ActivationCache": "activations",
    "ActivationStream": "activations",
    "Ablate": "interventions",
    "Add": "interventions",
    "Clamp": "interventions",
    "Scale": "interventions",
    "steering": "interventions",
    "SweepRun": "training",
    "TrainConfig": "training",
    "TrainJob": "training",
    "TrainingRun": "training",
    "plan": "training",
    "resume_training": "training",
    "sweep": "training",
    "train": "training",
    "FeatureIndex": "features",
    "Evaluation": "evaluation",
    "evaluate": "evaluation",
    "random_decoder": "evaluation",
    "FeatureBrowser": "widgets",
    "FeatureDashboard": "widgets",
    "SteeringPanel": "widgets",
    "SweepMonitor": "widgets",
    "TokenHeatmap": "widgets",
    "TrainingMonitor": "widgets",
}

__all__ = [
    "SAE",
    "Ablate",
    "ActivationCache",
    "ActivationStream",
    "Add",
    "Clamp",
    "Evaluation",
    "FeatureBrowser",
    "FeatureDashboard",
    "FeatureIndex",
    "SAEConfig",
    "SAEMetadata",
    "Scale",
    "SteeringPanel",
    "SweepMonitor",
    "SweepRun",
    "TokenHeatmap",
    "TrainConfig",
    "TrainJob",
    "TrainingMonitor",
    "TrainingRun",
    "evaluate",
    "load_model",
    "load_sae",
    "load_texts",
    "plan",
    "random_decoder",
    "resume_training",
    "save_sae",
    "split_signs",
    "steering",
    "sweep",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"saewidgets has no {name!r}. It has: {', '.join(__all__)}.")
    value = getattr(import_module(f"saewidgets.{_ROOM_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({"__version__", *__all__})


def _under_ipython() -> None:
    """Tell a running IPython how to show a run, an index and an SAE. By name: nothing is loaded until one is shown."""
    import sys

    if "IPython" in sys.modules:
        from saewidgets._ipython import register

        register()


_under_ipython()
