"""A real JupyterLab with a kernel of this environment, and a notebook opened in it in Chromium."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nbformat
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"
CELL_WIDTH = 800
WINDOW = {"width": 1232, "height": 1000}  # what makes CELL_WIDTH in JupyterLab 4.6; set_cell_width corrects the rest
PATIENCE = 120_000  # milliseconds; two cores may be busy with more than these tests
OUR_MACHINE = ("127.0.0.1", "localhost")

# JupyterLab's own messages on the console, none of them from a widget.
HOST_NOISE: tuple[re.Pattern[str], ...] = ()

# A test asks for code to be run beside the cells; what it prints and what it evaluates to come back as text.
EXECUTE = """async ([code, patience]) => {
  const kernel = jupyterapp.shell.currentWidget.context.sessionContext.session.kernel;
  const future = kernel.requestExecute({ code, store_history: false, stop_on_error: false });
  let text = "", error = null;
  future.onIOPub = ({ header, content }) => {
    if (header.msg_type === "stream" && content.name === "stdout") text += content.text;
    if (header.msg_type === "execute_result") text += content.data["text/plain"];
    if (header.msg_type === "error") error = content.traceback.join("\\n");
  };
  const late = new Promise((_, refuse) => {
    setTimeout(() => refuse(new Error("the kernel did not answer")), patience);
  });
  await Promise.race([future.done, late]);
  return { text, error };
}"""

IDLE = """() => {
  const session = globalThis.jupyterapp?.shell.currentWidget?.context?.sessionContext?.session;
  return session?.kernel?.status === "idle";
}"""

# How JupyterLab marks a traceback, whichever renderer draws it.
FAILURE = ", ".join(f".jp-Notebook [data-mime-type='application/vnd.jupyter.{kind}']" for kind in ("error", "stderr"))

ANSI = re.compile(r"\x1b\[[0-9;]*m")


class JupyterLab:
    """A server on an unused port with a home of its own, where no setting of the user's reaches it."""

    def __init__(self, home: Path) -> None:
        self.root = home / "notebooks"
        self._log = home / "server.log"
        for name in ("home", "config", "data", "runtime", "settings", "workspaces", "ipython", "notebooks"):
            (home / name).mkdir(parents=True)
        self._write_settings(home / "settings")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        environment = {
            **os.environ,
            "HOME": str(home / "home"),
            "JUPYTER_CONFIG_DIR": str(home / "config"),
            "JUPYTER_DATA_DIR": str(home / "data"),
            "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
            "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
            "IPYTHONDIR": str(home / "ipython"),
            "JUPYTER_PREFER_ENV_PATH": "1",
            "ANYWIDGET_HMR": "0",
            "HF_HUB_OFFLINE": "1",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        }
        command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--ip=127.0.0.1", f"--port={port}"]
        command += [
            "--ServerApp.port_retries=0",
            "--IdentityProvider.token=",
            "--ServerApp.disable_check_xsrf=True",
        ]
        command += [
            f"--ServerApp.root_dir={self.root}",
            "--allow-root",
            "--LabApp.expose_app_in_browser=True",
        ]
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(
                command,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise

    @staticmethod
    def _write_settings(folder: Path) -> None:
        settings: dict[str, dict[str, Any]] = {
            "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
            "notebook-extension/tracker": {"windowingMode": "none"},
            "docmanager-extension/plugin": {"autosave": False},
        }
        for name, values in settings.items():
            file = folder / "@jupyterlab" / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values))

    def _wait_until_it_answers(self) -> None:
        end = time.monotonic() + PATIENCE / 1000
        while time.monotonic() < end:
            if self._server.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{self.url}/api/status", timeout=5):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)
        raise RuntimeError(f"JupyterLab did not start. The end of its log:\n{self.log()}")

    def log(self) -> str:
        """The last lines of the server's log."""
        return self._log.read_text(errors="replace")[-4000:] if self._log.exists() else ""

    def write(self, cells: list[str] | Path) -> str:
        """Put a notebook (code cells, or a copy of a file) under the server's root and give its name there."""
        name = f"{uuid.uuid4().hex[:8]}.ipynb"
        if isinstance(cells, Path):
            shutil.copyfile(cells, self.root / name)
            return name
        notebook = nbformat.v4.new_notebook()
        notebook.metadata["kernelspec"] = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
        notebook.cells = [nbformat.v4.new_code_cell(source) for source in cells]
        nbformat.write(notebook, self.root / name)
        return name

    def stop(self) -> None:
        """End the server and every kernel that it started."""
        if self._server.poll() is None:
            self._server.send_signal(signal.SIGTERM)
            try:
                self._server.wait(15)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self._server.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._server.wait()


class NotebookPage:
    """One notebook in one browser tab, its kernel idle. `page` is Playwright's, for what is not offered here."""

    def __init__(self, browser: Browser, lab: JupyterLab, cells: list[str] | Path, scale: float = 1) -> None:
        self.name = lab.write(cells)
        self.path = lab.root / self.name
        self.context: BrowserContext = browser.new_context(viewport=WINDOW, device_scale_factor=scale)  # type: ignore[arg-type]
        self.console_errors: list[str] = []
        self.foreign_requests: list[str] = []
        self.context.route(is_foreign, self._refuse)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.console_errors.append(error.stack or str(error)))
        self.page.on("websocket", lambda socket: self._note(socket.url))
        self.page.goto(f"{lab.url}/lab/tree/{self.name}?reset")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")
        self.wait_until_idle()
        self.set_cell_width(CELL_WIDTH)

    # -- what is recorded ------------------------------------------------------------------------------------

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not any(noise.search(message.text) for noise in HOST_NOISE):
            self.console_errors.append(f"{message.text} ({message.location.get('url', '')})")

    def _refuse(self, route: Any) -> None:
        self.foreign_requests.append(route.request.url)
        route.abort()

    def _note(self, url: str) -> None:
        if is_foreign(url):
            self.foreign_requests.append(url)

    # -- the kernel ------------------------------------------------------------------------------------------

    def wait_until_idle(self) -> None:
        """Wait until the kernel has nothing to do."""
        self.page.wait_for_function(IDLE, timeout=PATIENCE)

    def run_all(self, allow_errors: bool = False) -> None:
        """Run every cell and wait for the last; raises AssertionError with the traceback if one fails."""
        self._command("notebook:run-all-cells")
        self.wait_until_idle()
        texts = [text for text in self.page.locator(FAILURE).all_inner_texts() if "Traceback" in text]
        if texts and not allow_errors:
            raise AssertionError("A cell of the notebook failed:\n" + "\n".join(texts))

    def run_cell(self, source: str, patience: float = PATIENCE / 1000) -> str:
        """Run code in the notebook's kernel beside its cells; gives what it prints and evaluates to, as text.

        It queues behind a running cell. `patience` is in seconds. Raises AssertionError with the traceback if it
        fails.
        """
        answer = self.page.evaluate(EXECUTE, [source, patience * 1000])
        if answer["error"] is not None:
            raise AssertionError(ANSI.sub("", answer["error"]))
        return str(answer["text"]).strip()

    def wait_for(self, source: str, expected: str | Callable[[str], bool], patience: float = 15) -> str:
        """Run `source` again and again until its text is (or passes) `expected`; gives that text."""
        passes = (lambda text: text == expected) if isinstance(expected, str) else expected
        end = time.monotonic() + patience
        while not passes(text := self.run_cell(source)):
            if time.monotonic() > end:
                raise AssertionError(f"{source} stayed {text!r}, expected {expected!r}")
            self.page.wait_for_timeout(100)
        return text

    def restart_kernel(self) -> None:
        """Restart the kernel, as a user would; what the cells show stays."""
        kernel = "jupyterapp.shell.currentWidget.context.sessionContext.session.kernel"
        self.page.evaluate(f"() => {kernel}.restart()")
        self.wait_until_idle()

    def _command(self, name: str, arguments: dict[str, Any] | None = None) -> None:
        execute = "([name, args]) => jupyterapp.commands.execute(name, args).then(() => null)"
        self.page.evaluate(execute, [name, arguments or {}])

    # -- what is seen ----------------------------------------------------------------------------------------

    def output(self, index: int) -> Locator:
        """The output area of cell `index`, counted from 0."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(index).locator(".jp-Cell-outputArea")

    def set_cell_width(self, width: int) -> None:
        """Make the window so wide that the output of a cell has `width` pixels."""
        editor = self.page.locator(".jp-Notebook .jp-InputArea-editor").first
        size = self.page.viewport_size or WINDOW
        for _ in range(3):
            wrong = width - round(editor.evaluate("element => element.getBoundingClientRect().width"))
            if wrong == 0:
                break
            size = {"width": size["width"] + wrong, "height": size["height"]}
            self.page.set_viewport_size(size)  # type: ignore[arg-type]
            self.page.wait_for_timeout(150)

    def set_theme(self, theme: str) -> None:
        """Switch JupyterLab to "light" or "dark"."""
        name = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}[theme]
        self._command("apputils:change-theme", {"theme": name})
        self.page.wait_for_selector(f"body[data-jp-theme-name='{name}']", state="attached")
        # a second change before its splash is gone makes JupyterLab 4.6 remove the splash twice, which throws
        self.page.wait_for_selector("#jupyterlab-splash", state="detached")

    def screenshot(self, name: str, locator: Locator | None = None) -> Path:
        """Write build/screenshots/<name>.png of the window, or of one element."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        file = SCREENSHOTS / f"{name}.png"
        (locator or self.page).screenshot(path=file, animations="disabled")
        return file

    def close(self) -> None:
        """Shut the kernel down and close the tab."""
        try:
            self.page.evaluate("() => jupyterapp.shell.currentWidget.context.sessionContext.shutdown()")
        finally:
            self.context.close()


class OfflinePage:
    """A page from a file, without a network: every request but the page itself is refused and recorded."""

    def __init__(self, browser: Browser, file: Path, width: int, scale: float, dark: bool) -> None:
        address = file.resolve().as_uri()

        def is_other(url: str) -> bool:
            return url.split("#")[0] != address and not url.startswith(("data:", "blob:"))

        self.console_errors: list[str] = []
        self.requests: list[str] = []
        self.context = browser.new_context(
            viewport={"width": width, "height": 1000},
            device_scale_factor=scale,
            color_scheme="dark" if dark else "light",
            accept_downloads=False,
        )
        self.context.route(is_other, self._refuse)
        self.context.set_offline(True)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE / 4)
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.console_errors.append(error.stack or str(error)))
        self.page.goto(address)

    def _refuse(self, route: Any) -> None:
        self.requests.append(route.request.url)
        route.abort()

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.console_errors.append(message.text)

    def screenshot(self, name: str, locator: Locator | None = None) -> Path:
        """Write build/screenshots/<name>.png of the window, or of one element."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        file = SCREENSHOTS / f"{name}.png"
        (locator or self.page).screenshot(path=file, animations="disabled")
        return file

    def close(self) -> None:
        self.context.close()


def is_foreign(url: str) -> bool:
    """Whether a request would leave this machine."""
    parts = urlsplit(url)
    return parts.scheme in ("http", "https", "ws", "wss") and parts.hostname not in OUR_MACHINE
