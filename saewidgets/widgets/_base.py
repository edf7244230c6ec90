"""What every widget shares: its bundle, numbered requests, refusals, snapshots.

A widget is three layers. The *view model* is plain Python: a class whose `requests` names the methods a screen may
call; each returns `(result, buffers)`, or is a generator of such pairs where the answer grows (text as it is written).
The *widget* (here) carries traits and messages. The *view* (js/src/<name>) draws. The protocol, both ways over custom
messages, so that nothing big ever sits in a trait:

    view -> kernel   {kind: "request", id, method, params}
    kernel -> view   {kind: "part",   id, seq, result} + buffers      a growing answer
                     {kind: "answer", id, result} + buffers           the end of it
                     {kind: "error",  id, message}                    a sentence for the reader
                     {kind: "refused", message}                       a trait the browser set did not pass

A page without a kernel plays the same answers back from `snapshot()`.
"""

from __future__ import annotations

import difflib
import json
import math
import threading
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from inspect import isgenerator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import anywidget
import traitlets

if TYPE_CHECKING:
    from saewidgets.models import Token

Params = dict[str, Any]
Answer = tuple[dict[str, Any], list[bytes]]
"""A JSON-able result and the raw little-endian arrays it refers to by position."""


class ViewModel(Protocol):
    """What to show, computed from the core; knows no widget and no screen."""

    requests: ClassVar[tuple[str, ...]]
    """The methods a screen may call by name. Nothing else is reachable from a message."""


@cache
def bundle(name: str) -> str:
    """The built JavaScript of one widget, one ES module.

    Raises:
        RuntimeError: it has not been built (a checkout without `make js`).
    """
    built = files("saewidgets") / "widgets" / "static" / f"{name}.js"
    if not built.is_file():
        raise RuntimeError(
            f"The browser part of this widget ({name}.js) is not built. In a checkout run `make js` (needs Node 20 or "
            "newer); an installed wheel always has it."
        )
    return built.read_text(encoding="utf-8")


class Text(traitlets.Unicode[str, str]):
    """Text that a message can carry: a lone surrogate, which is no character, becomes U+FFFD."""

    def validate(self, obj: Any, value: Any) -> Any:
        from saewidgets.models.tokens import clean  # brings torch, which a server that lists exporters does without

        return clean(super().validate(obj, value))


class SAEWidget(anywidget.AnyWidget):
    """The base of the widgets: traits for what is selected, numbered requests for everything else."""

    bundle_name: ClassVar[str]
    """The folder in js/src and the file in widgets/static."""

    _esm = traitlets.Unicode().tag(sync=True)
    _live = traitlets.Bool(True, help="False in an exported page: answers are played back.").tag(sync=True)

    def __init__(self, view: ViewModel, **options: Any) -> None:
        self._refuse_unknown(options)
        self._view = view
        self._newest: dict[str, str] = {}  # method -> the question, as JSON, that was asked last
        self._order = threading.Lock()
        super().__init__(**options)
        self.on_msg(self._on_message)
        self._hear_while_a_cell_runs()

    def _hear_while_a_cell_runs(self) -> None:
        """Take each message on the thread that the browser named, a subshell of the kernel, where it has some.

        ipykernel 7.4 gives it to whoever spoke last on the comm instead. That is mostly the main thread, or a training
        thread that counts as it: while a cell runs `run.wait()` no curve would grow and no pause be heard.
        """
        if hasattr(self.comm, "_reply_subshell_for"):
            self.comm._reply_subshell_for = lambda _data, named: named

    @traitlets.default("_esm")
    def _default_esm(self) -> str:
        return bundle(self.bundle_name)

    @classmethod
    def options(cls) -> list[str]:
        """The names of the traits a caller may set."""
        from ipywidgets import DOMWidget

        own = [name for name in cls.class_trait_names() if not name.startswith("_")]
        return sorted(set(own) - set(DOMWidget.class_trait_names())) + ["layout"]

    def _refuse_unknown(self, options: dict[str, Any]) -> None:
        known = self.options()
        for name in options:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                guess = f" Did you mean {near[0]!r}?" if near else ""
                raise TypeError(f"{type(self).__name__} has no option {name!r}.{guess} It takes: {', '.join(known)}.")

    # -- requests ---------------------------------------------------------------------------------------------

    def _on_message(self, _widget: object, message: Any, _buffers: list[Any]) -> None:
        """One message from a view; on any thread (JupyterLab sends comm messages over subshells)."""
        if not isinstance(message, dict) or message.get("kind") != "request":
            return
        request = int(message["id"])
        method = str(message.get("method"))
        try:
            answer = self.answer(method, message.get("params") or {})
        except Exception as error:  # the sentence belongs on the screen of who asked, not in a log nobody reads
            self.send({"kind": "error", "id": request, "message": sentence(error)})
            return
        if isgenerator(answer):
            question = json.dumps(message.get("params"), sort_keys=True)
            with self._order:
                self._newest[method] = question
            threading.Thread(target=self._stream, args=(method, question, request, answer), daemon=True).start()
        else:
            result, buffers = answer
            self.send({"kind": "answer", "id": request, "result": result}, buffers)

    def _stream(self, method: str, question: str, request: int, parts: Iterator[Answer]) -> None:
        """Send a growing answer; another question to the same method ends it at its next part.

        The same question asked again does not: a widget that is displayed twice asks everything twice.
        """
        result: dict[str, Any] = {}
        buffers: list[bytes] = []
        try:
            for seq, (result, buffers) in enumerate(parts):
                if self._newest.get(method) != question:
                    result = {"superseded": True}
                    buffers = []
                    break
                self.send({"kind": "part", "id": request, "seq": seq, "result": result}, buffers)
            self.send({"kind": "answer", "id": request, "result": result}, buffers)
        except Exception as error:  # as in _on_message: shown where it was asked
            self.send({"kind": "error", "id": request, "message": sentence(error)})

    def answer(self, method: str, params: Params) -> Any:
        """Ask the view model, as a view would: `(result, buffers)` or a generator of them.

        Raises:
            ValueError: the view model has no such request.
        """
        if method not in self._view.requests:
            raise ValueError(f"{type(self).__name__} does not answer {method!r}; it answers {self._view.requests}.")
        return getattr(self._view, method)(**params)

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """State set by the browser. What does not pass is said there, and the view goes back to what holds."""
        try:
            super().set_state(sync_data)
        except traitlets.TraitError as error:
            self.send({"kind": "refused", "message": sentence(error)})
            self.send_state(key=[name for name in sync_data if self.has_trait(name)])

    # -- without a kernel -------------------------------------------------------------------------------------

    def recorded_requests(self) -> Iterable[tuple[str, Params]]:
        """The requests whose answers an exported page carries. Each widget names its own."""
        return ()

    def snapshot(self) -> dict[str, Any]:
        """All that a page without a kernel needs to show this widget as it stands now.

        Returns:
            `bundle` (name), `state` (traits), `text`, and `answers`, a list of `method`, `params`, and either `result`
            and `buffers` or, where the request failed, the `error` that a live view would show.
        """
        answers = [
            {"method": method, "params": params, **self._recording(method, params)}
            for method, params in self.recorded_requests()
        ]
        names = [name for name in self.options() if name != "layout"]
        state = dict(self.get_state(names))
        return {
            "bundle": self.bundle_name,
            "state": {**state, "_live": False},
            "answers": answers,
            "text": repr(self),
        }

    def _recording(self, method: str, params: Params) -> dict[str, Any]:
        try:
            given = self.answer(method, params)
            if isgenerator(given):
                *_, given = given
        except Exception as error:  # as in _on_message: an empty prompt is no reason to lose a page
            return {"error": sentence(error)}
        result, buffers = given
        return {"result": result, "buffers": buffers}

    def to_html(self, path: str | Path, title: str | None = None) -> Path:
        """Write one self-contained page: no network, still interactive. Returns the path written."""
        from saewidgets.widgets.export import page

        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page([self.snapshot()], title or type(self).__name__), encoding="utf-8")
        return target

    # -- text -------------------------------------------------------------------------------------------------

    def shown(self) -> dict[str, Any]:
        """What the one-line text of this widget names: small, deterministic, no addresses."""
        return {}

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={_short(value)}" for name, value in self.shown().items())
        return f"{type(self).__name__}({inside})"


def sentence(error: BaseException) -> str:
    """An error as a reader should see it: our own sentences as they are, others with the name of their kind."""
    from saewidgets.models.tokens import clean

    text = clean(str(error)).strip()
    ours = isinstance(error, (ValueError, RuntimeError, traitlets.TraitError, FileNotFoundError))
    return text if text and ours else f"{type(error).__name__}: {text}".rstrip(": ")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else None
    if text is not None and len(text) > 40:
        return repr(text[:39] + "…")
    return repr(value)


def feature_in_range(value: int | None, d_sae: int) -> int | None:
    """A feature id that exists, or None.

    Raises:
        traitlets.TraitError: it is not one of 0 … d_sae - 1.
    """
    if value is not None and not 0 <= value < d_sae:
        raise traitlets.TraitError(f"There is no feature #{value}: this SAE has features 0 to {d_sae - 1}.")
    return value


def as_json(value: Any) -> str:
    """JSON that may stand inside a <script> element: no `<` is left in it."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False).replace("<", "\\u003C")


def finite(value: float | None) -> float | None:
    """A number that JSON can carry, or None."""
    return float(value) if value is not None and math.isfinite(value) else None


def token_as_json(token: Token) -> dict[str, Any]:
    """A token as a view takes it; flags only where they hold."""
    flags = {name: True for name in ("special", "hex") if getattr(token, name)}
    return {"text": token.text, **flags}


def source_line(architecture: str, hook_name: str, step: int | None) -> str:
    """Which SAE is shown, in one line. `step` is that of the run it was copied from, running or over."""
    return " · ".join([architecture, hook_name, *([f"step {step:,}"] if step is not None else [])])
