"""What an edit is, and steering a model with it: by hooks, token by token, or for the next token only.

An edit says what a feature's activation f becomes; the model's activation x moves by (f' - f) along that feature's
decoder row, so what the SAE does not explain stays as it is.
"""

from __future__ import annotations

from saewidgets.interventions.edits import Ablate, Add, Clamp, Edit, RandomDirection, Scale, random_direction_edit
from saewidgets.interventions.generation import continuations
from saewidgets.interventions.next_token import NextToken
from saewidgets.interventions.steering import edit_hooks, steering

__all__ = [
    "Ablate",
    "Add",
    "Clamp",
    "Edit",
    "NextToken",
    "RandomDirection",
    "Scale",
    "continuations",
    "edit_hooks",
    "random_direction_edit",
    "steering",
]
