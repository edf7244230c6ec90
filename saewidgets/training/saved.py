"""What a checkpoint holds of a `Loop`: everything that decides the steps to come, and the record of those taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saewidgets.training.subscribers import Stopwatch

if TYPE_CHECKING:
    from saewidgets.training.loop import Loop


def tensors_of(loop: Loop) -> dict[str, Tensor]:
    """The weights, and what the steps remember: optimizer, generators, counts."""
    own = {f"sae.{name}": tensor for name, tensor in loop.sae.state_dict().items()}
    return own | {f"steps.{name}": tensor for name, tensor in loop.begun().state().items()}


def state_of(loop: Loop) -> dict[str, Any]:
    """Everything else, as JSON values (rows hold NaN too, which Python's JSON has)."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": str(loop.sae.device),
        "sae": {"cfg": loop.sae.cfg.to_dict(), "metadata": loop.sae.metadata.to_dict()},
        "config": loop.config.to_dict(),
        "settings": {**loop.settings.values(), "annealing": loop.settings.annealing},
        "step": loop.step,
        "tokens": loop.tokens,
        "planned": loop.planned,
        "logged": loop.logged,
        "marked": loop.marked,
        "seconds": loop.clock.seconds,
        "aside": loop.clock.aside,
        "micro_batch": loop.begun().gradients.micro_batch,
        "rows": loop.rows,
        "events": loop.events,
        "snapshots": loop.snapshots.steps,
        "stream": {
            "position": loop.position,
            "batch_size": loop.vectors.batch_size,
            "takes": loop.vectors.takes,
            "n_vectors": loop.vectors.n_vectors,
            "fingerprints": loop.vectors.fingerprints(),
        },
    }


def put_back(loop: Loop, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Make a loop what it was: the SAE, the optimizer, the stream, the record."""
    for name in ("step", "tokens", "planned", "logged", "marked"):
        setattr(loop, name, state[name])
    loop.rows, loop.events = list(state["rows"]), list(state["events"])
    for name, value in state["settings"].items():
        setattr(loop.settings, name, value)
    stream = state["stream"]
    loop.vectors.batch_size, loop.vectors.n_vectors = stream["batch_size"], stream["n_vectors"]
    # of a run that is given another length now: its blocks stay as they were cut when it began
    loop.vectors.takes = stream.get("takes")
    loop.position = tuple(stream["position"])
    loop.vectors.seek(*loop.position)
    loop.snapshots.take_over(state["snapshots"])
    loop.clock = Stopwatch(state["seconds"], state.get("aside", 0.0))
    loop.saved_at, loop.saved = loop.tokens, True
    steps = loop.get_ready(tensors["steps.centre"].to(loop.sae.device))
    own = loop.sae.state_dict()
    with torch.no_grad():
        for name, tensor in tensors.items():
            if name.startswith("sae."):
                own[name.removeprefix("sae.")].copy_(tensor)
    steps.load({name.removeprefix("steps."): t for name, t in tensors.items() if name.startswith("steps.")})
    steps.gradients.micro_batch = state["micro_batch"]
