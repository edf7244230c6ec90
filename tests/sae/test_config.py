"""What an SAEConfig refuses, and what it fills in."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest

from saewidgets.sae import SAE, SAEConfig
from saewidgets.sae.architectures import get_architecture, register
from saewidgets.training import TrainConfig, TrainJob


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"architecture": "relu", "k": 8}, "'relu' does not use k"),
        ({"architecture": "matching_pursuit", "aux_coefficient": 0.1}, "does not use aux_coefficient"),
        ({"architecture": "topk", "sparsity_coefficient": 1.0}, "does not use sparsity_coefficient"),
        ({"architecture": "topk", "d_out": 8}, "does not use d_out .got 8.. Leave it out"),
        ({"architecture": "relu", "sparsity_coefficient": -1.0}, "sparsity_coefficient must be 0 or more"),
        ({"architecture": "relu_kl", "target_rate": 0.0}, "target_rate must be above 0"),
        ({"architecture": "relu_kl", "target_rate": 1.0}, "target_rate must be below 1"),
        ({"architecture": "jumprelu", "bandwidth": 0.0}, "bandwidth must be above 0"),
        ({"architecture": "jumprelu", "penalty": "l0"}, "penalty must be one of step, tanh"),
        ({"architecture": "p_anneal", "p_final": 0.0}, "p_final must be above 0"),
        ({"architecture": "matryoshka", "matryoshka_widths": (5, 30)}, "in ascending order, the last one d_sae"),
        ({"architecture": "matryoshka", "matryoshka_widths": (20, 5, 40)}, "in ascending order"),
        ({"architecture": "topk", "k": 4, "multi_k": 4}, "multi_k must be above k"),
        ({"architecture": "dense", "activation": "gelu"}, "activation must be one of relu, linear, sigmoid"),
        ({"normalize": "batch"}, "normalize must be one of"),
        ({"init_b_dec": "median"}, "init_b_dec must be one of"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SAEConfig(d_in=12, d_sae=40, **{"k": 4, **options} if "architecture" not in options else options)


def test_what_is_not_given_is_filled_in_for_those_who_read_it() -> None:
    assert SAEConfig(d_in=4096, d_sae=40, architecture="relu").sparsity_coefficient == 5.0
    assert SAEConfig(d_in=12, d_sae=160, architecture="matryoshka").matryoshka_widths == (10, 20, 40, 80, 160)
    assert SAEConfig(d_in=12, d_sae=40, architecture="transcoder").d_out == 12
    relu = SAEConfig(d_in=12, d_sae=40, architecture="relu")
    assert relu.aux_k is None and relu.d_out is None and relu.matryoshka_widths is None
    assert repr(SAE(relu)) == "SAE(relu, d_in=12, d_sae=40, hook_name=None)"


def test_help_says_what_each_option_is() -> None:
    for cls in (SAEConfig, TrainConfig, TrainJob):
        told = inspect.getdoc(cls) or ""
        for option in dataclasses.fields(cls):
            after = told.split(f"\n    {option.name}: ")[1].splitlines()
            assert len(after[1].strip()) > 10, option.name


def test_names_of_other_libraries_get_a_hint() -> None:
    with pytest.raises(TypeError, match=r"no option 'normalize_activations'. It is normalize\."):
        SAEConfig(d_in=8, d_sae=16, normalize_activations="none")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"no option 'lr_warm_up_steps'. It is warmup_fraction, a share of the run\."):
        TrainConfig(n_tokens=10, lr_warm_up_steps=100)  # type: ignore[call-arg]


def test_a_built_in_architecture_is_not_replaced() -> None:
    with pytest.raises(ValueError, match="saewidgets has an architecture 'topk' itself"):

        @register("topk")
        class Mine(type(get_architecture("topk"))):  # type: ignore[misc]
            pass

    assert type(get_architecture("topk")).__name__ == "TopK"
