"""The protocol every widget speaks, on a small widget of the test's own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import traitlets

from saewidgets.widgets import _base, handover
from saewidgets.widgets._base import Answer, SAEWidget, Text, as_json, feature_in_range, sentence
from saewidgets.widgets.export import page


class CountView:
    requests: ClassVar[tuple[str, ...]] = ("double", "grow", "fail")

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def double(self, n: int) -> Answer:
        return {"twice": 2 * n}, [bytes([n])]

    def grow(self, n: int) -> Iterator[Answer]:
        for i in range(n):
            yield {"so_far": i}, []
            self.go_on.wait(5)

    def fail(self) -> Answer:
        raise ValueError("The prompt is empty. Type at least one character.")

    def secret(self) -> Answer:
        return {"leaked": True}, []


class Count(SAEWidget):
    bundle_name: ClassVar[str] = "token_heatmap"
    feature = traitlets.Int(None, allow_none=True).tag(sync=True)
    label = Text("").tag(sync=True)

    @traitlets.validate("feature")
    def _exists(self, proposal: dict[str, Any]) -> int | None:
        return feature_in_range(proposal["value"], 10)

    def recorded_requests(self) -> Iterator[tuple[str, dict[str, Any]]]:
        yield "double", {"n": 3}

    def shown(self) -> dict[str, Any]:
        return {"feature": self.feature}


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], list[bytes]]]:
    messages: list[tuple[dict[str, Any], list[bytes]]] = []
    monkeypatch.setattr(Count, "send", lambda self, content, buffers=None: messages.append((content, buffers or [])))
    return messages


def ask(widget: SAEWidget, method: str, request: int = 1, **params: Any) -> None:
    widget._on_message(widget, {"kind": "request", "id": request, "method": method, "params": params}, [])


def test_an_answer_carries_its_number_and_its_buffers(said: list[Any]) -> None:
    ask(Count(CountView()), "double", request=7, n=4)
    assert said == [({"kind": "answer", "id": 7, "result": {"twice": 8}}, [b"\x04"])]


def test_an_error_is_its_sentence(said: list[Any]) -> None:
    ask(Count(CountView()), "fail")
    assert said[0][0] == {
        "kind": "error",
        "id": 1,
        "message": "The prompt is empty. Type at least one character.",
    }


def test_only_named_methods_are_reachable(said: list[Any]) -> None:
    for method in ("secret", "__init__", "go_on"):
        ask(Count(CountView()), method)
    assert [message["kind"] for message, _ in said] == ["error"] * 3


def test_a_newer_request_ends_a_growing_answer(said: list[Any]) -> None:
    view = CountView()
    widget = Count(view)
    ask(widget, "grow", request=1, n=100)
    ask(widget, "grow", request=2, n=2)
    view.go_on.set()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread.daemon and "_stream" in thread.name:
            thread.join(5)
    last = {message["id"]: message for message, _ in said if message["kind"] == "answer"}
    assert last[1]["result"] == {"superseded": True}
    assert last[2]["result"] == {"so_far": 1}
    assert sum(message["id"] == 1 for message, _ in said) < 10


def test_the_same_question_asked_twice_is_answered_twice(said: list[Any]) -> None:
    view = CountView()
    widget = Count(view)
    ask(widget, "grow", request=1, n=2)
    ask(widget, "grow", request=2, n=2)
    view.go_on.set()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread.daemon and "_stream" in thread.name:
            thread.join(5)
    last = {message["id"]: message["result"] for message, _ in said if message["kind"] == "answer"}
    assert last == {1: {"so_far": 1}, 2: {"so_far": 1}}


def test_a_typo_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"Count has no option 'featur'\. Did you mean 'feature'\?"):
        Count(CountView(), featur=3)


def test_a_feature_out_of_range_from_python_raises() -> None:
    widget = Count(CountView(), feature=3)
    with pytest.raises(traitlets.TraitError, match=r"no feature #10: this SAE has features 0 to 9"):
        widget.feature = 10
    assert widget.feature == 3


def test_a_feature_out_of_range_from_the_browser_is_said_there_and_taken_back(said: list[Any]) -> None:
    widget = Count(CountView(), feature=3)
    widget.set_state({"feature": -1})
    assert widget.feature == 3
    assert said[0][0]["kind"] == "refused" and "no feature #-1" in said[0][0]["message"]


def test_repr_is_the_same_every_time() -> None:
    assert repr(Count(CountView(), feature=3)) == repr(Count(CountView(), feature=3)) == "Count(feature=3)"


def test_a_bundle_that_is_not_built_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Count, "bundle_name", "never_built")
    _base.bundle.cache_clear()
    with pytest.raises(RuntimeError, match="make js"):
        Count(CountView())


def test_a_page_carries_the_answers_and_no_element_can_be_ended_early() -> None:
    snapshot = Count(CountView()).snapshot()
    snapshot["answers"][0]["result"]["token"] = "</script><script>alert(1)</script>"
    html = page([snapshot], "</title><b>")
    assert html.count("</script>") == 3 and "alert(1)</script>" not in html
    assert "<b>" not in html
    assert '"method": "double"' in html
    assert "<" not in as_json({"a": "<!-- </style>"})


def test_a_request_that_fails_is_recorded_as_its_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Count, "recorded_requests", lambda self: [("fail", {}), ("double", {"n": 3})])
    failed, answered = Count(CountView()).snapshot()["answers"]
    assert failed["error"] == "The prompt is empty. Type at least one character."
    assert answered["result"] == {"twice": 6} and "error" not in answered
    written = Count(CountView()).to_html(tmp_path / "page.html").read_text("utf-8")
    assert "The prompt is empty. Type at least one character." in written


def test_a_widget_that_cannot_be_recorded_leaves_the_others_in_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: SAEWidget) -> dict[str, Any]:
        raise FileNotFoundError("The index is gone.")

    class Broken(Count):
        snapshot = fail

    whole, broken = Count(CountView()), Broken(CountView())
    given = json.loads(handover.as_text([broken.model_id, whole.model_id]))
    assert list(given["snapshots"]) == [whole.model_id]
    assert given["layouts"][broken.model_id] == {"text": "Broken could not be recorded: The index is gone."}


def test_text_that_no_message_can_carry_is_cleaned(said: list[Any]) -> None:
    widget = Count(CountView(), label="a\ud800b")
    assert widget.label == "a\ufffdb"
    widget.label = "\udc00"
    assert widget.label == "\ufffd"
    assert sentence(ValueError("no 'a\ud800b' here")) == "no 'a\ufffdb' here"
    with pytest.raises(traitlets.TraitError):
        widget.label = 3
