"""SteeringPanel's view model and traits, on the embedded model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import traitlets

import saewidgets as sw
from saewidgets.widgets.steering_view import PROBE, SteeringView, from_plain, to_plain

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

PROMPT = "Once upon a time"
EDITS = {5: sw.Clamp(8.0), 7: sw.Add(-2.0), 9: sw.Scale(3.0), 11: sw.Ablate()}


@pytest.fixture(scope="module")
def view(demo_model: TransformerBridge, demo_sae: sw.SAE) -> SteeringView:
    return SteeringView(demo_sae, demo_model)


def last(parts: Any) -> dict[str, Any]:
    *_, (result, _) = parts
    return result


def test_edits_go_to_json_and_back() -> None:
    assert from_plain(to_plain(EDITS)) == EDITS


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"feature": 5, "mode": "melt", "value": 1.0}, "no mode 'melt'"),
        ({"feature": 5, "mode": "clamp", "value": None}, "number"),
        ({"feature": 5, "mode": "clamp", "value": float("nan")}, "finite"),
    ],
)
def test_edits_that_are_none_get_a_sentence(row: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        from_plain([row])


def test_next_token_is_that_of_a_whole_steered_forward(
    view: SteeringView, demo_model: TransformerBridge, demo_sae: sw.SAE
) -> None:
    result, (before, after, _f) = view.next_token(PROMPT, to_plain(EDITS), seed=0)
    with sw.steering(demo_sae, demo_model, EDITS):
        steered = demo_model(PROMPT)[0, -1].softmax(-1)
    plain = demo_model(PROMPT)[0, -1].softmax(-1)
    change = (steered - plain).abs().topk(len(result["tokens"])).indices
    assert np.frombuffer(before, "<f4") == pytest.approx(plain[change].tolist(), abs=1e-5)
    assert np.frombuffer(after, "<f4") == pytest.approx(steered[change].tolist(), abs=1e-5)
    assert result["kl"] > 0 and result["kl_control"] > 0


def test_without_an_edit_both_texts_are_the_same_and_with_one_they_are_not(view: SteeringView) -> None:
    plain = last(view.default_text(PROMPT, 12, 0.7, 0))
    assert last(view.steered_text(PROMPT, [], 12, 0.7, 0))["ids"] == plain["ids"]
    assert last(view.steered_text(PROMPT, to_plain({5: sw.Clamp(30.0)}), 12, 0.7, 0))["ids"] != plain["ids"]
    assert last(view.default_text(PROMPT, 12, 0.7, 0)) == plain


def test_features_are_found_by_id_and_refused_in_a_sentence(view: SteeringView) -> None:
    assert view.find("#7")[0]["found"] == [{"feature": 7}]
    with pytest.raises(ValueError, match="There is no feature 99999"):
        view.find("99999")
    with pytest.raises(ValueError, match="index="):
        view.find("bridge")


def test_what_does_not_exist_is_refused(demo_model: TransformerBridge, demo_sae: sw.SAE) -> None:
    panel = sw.SteeringPanel(demo_sae, demo_model, edits={5: sw.Clamp(8.0)})
    wrong = {"edits": {99_999: sw.Clamp(1.0)}, "n_tokens": 0, "temperature": -1.0, "seed": -1}
    for name, value in wrong.items():
        with pytest.raises(traitlets.TraitError):
            setattr(panel, name, value)
    with pytest.raises(traitlets.TraitError, match=r"Clamp"):
        panel.edits = {5: 8.0}
    with pytest.raises(TypeError, match="temprature"):
        sw.SteeringPanel(demo_sae, demo_model, temprature=1.0)
    assert dict(panel.edits) == {5: sw.Clamp(8.0)}


def test_a_browsers_wrong_edit_is_taken_back(demo_model: TransformerBridge, demo_sae: sw.SAE) -> None:
    panel = sw.SteeringPanel(demo_sae, demo_model, edits={5: sw.Clamp(8.0)})
    panel.set_state({"edits": [{"feature": 99_999, "mode": "clamp", "value": 1.0}]})
    assert dict(panel.edits) == {5: sw.Clamp(8.0)}


def test_a_page_carries_the_sliders_steps(demo_model: TransformerBridge, demo_sae: sw.SAE) -> None:
    panel = sw.SteeringPanel(demo_sae, demo_model, PROMPT, edits={5: sw.Clamp(8.0)}, n_tokens=3)
    asked = [method for method, _ in panel.recorded_requests()]
    steps = panel.snapshot()["state"]["_recorded"]["5"]
    assert 8.0 in steps and asked.count("steered_text") == len(steps) >= 5


def test_a_page_carries_the_random_direction_at_every_strength(
    demo_model: TransformerBridge, demo_sae: sw.SAE
) -> None:
    panel = sw.SteeringPanel(demo_sae, demo_model, PROMPT, edits={5: sw.Clamp(8.0), 7: sw.Ablate()}, n_tokens=2)
    asked = list(panel.recorded_requests())
    steered = [params for method, params in asked if method == "steered_text"]
    assert [params for method, params in asked if method == "control_text"] == steered and len(steered) >= 5
    panel.edits = {}
    assert "control_text" not in [method for method, _ in panel.recorded_requests()]


def test_the_reach_of_a_slider_moves_x_by_its_own_length(
    view: SteeringView, demo_model: TransformerBridge, demo_sae: sw.SAE
) -> None:
    hook_name = demo_sae.metadata.hook_name
    plain = demo_model.run_with_cache(PROBE)[1][hook_name][0, 1:]
    moved = (view.reach * demo_sae.W_dec[5].detach()).norm()
    assert float(moved) == pytest.approx(float(plain.detach().norm(dim=-1).mean()), rel=0.01)


def test_a_model_without_bos_is_steered(
    demo_model: TransformerBridge, demo_sae: sw.SAE, no_bos: None
) -> None:
    sae = demo_sae.clone()
    sae.metadata = sae.metadata.replace(prepend_bos=False, excluded_positions=())
    panel = sw.SteeringPanel(sae, demo_model, PROMPT, edits={5: sw.Clamp(8.0)}, n_tokens=2)
    assert panel.answer("features", {"features": [5]})[0]["reach"] > 0
    answers = panel.snapshot()["answers"]
    assert {"default_text", "steered_text", "next_token"} <= {answer["method"] for answer in answers}
    assert [answer.get("error") for answer in answers] == [None] * len(answers)


def test_a_prompt_that_cannot_be_read_is_recorded_as_its_sentence(
    demo_model: TransformerBridge, demo_sae: sw.SAE
) -> None:
    panel = sw.SteeringPanel(demo_sae, demo_model, "", edits={5: sw.Clamp(8.0)}, n_tokens=2)
    said = {answer["method"]: answer.get("error") or "" for answer in panel.snapshot()["answers"]}
    assert said["features"] == ""
    for method in ("default_text", "steered_text", "next_token"):
        assert said[method].startswith("The text is empty")


def test_the_place_is_named_with_its_step(view: SteeringView) -> None:
    assert view.features([5])[0]["source"] == "topk · blocks.2.hook_resid_post · step 5,005"
