"""Puts the built JavaScript of the widgets into the wheel, and builds it first where it is missing or old."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NODE_MISSING = (
    "saewidgets: the JavaScript of the widgets is not built (saewidgets/widgets/static) and Node.js was not "
    "found: install Node.js 20 or newer with npm and try again, or install saewidgets from a wheel, which holds it."
)


class JavaScriptBuildHook(BuildHookInterface):
    """Builds js/ into saewidgets/widgets/static before hatchling collects the files of a wheel or sdist."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        if is_built(root):
            return
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            # An editable install still serves everything but the widgets, which say what they miss.
            if self.target_name == "wheel" and version == "editable":
                self.app.display_warning(NODE_MISSING)
                return
            raise RuntimeError(NODE_MISSING)
        if not (root / "js" / "node_modules").is_dir():
            run([npm, "ci", "--no-audit", "--no-fund", "--loglevel=error"], root / "js")
        run([npm, "run", "--silent", "build"], root / "js")


def is_built(root: Path) -> bool:
    """Whether there is a bundle for each widget, none older than any source."""
    source = root / "js" / "src"
    widgets = {path.parent.name for path in source.glob("*/index.ts*") if path.parent.name != "shared"}
    bundles = list((root / "saewidgets" / "widgets" / "static").glob("*.js"))
    if widgets != {bundle.stem for bundle in bundles}:
        return False
    sources = [path for path in source.rglob("*") if path.is_file() and ".test." not in path.name]
    sources += [root / "js" / "build.mjs", root / "js" / "package-lock.json"]
    newest = max(path.stat().st_mtime for path in sources)
    return all(bundle.stat().st_mtime >= newest for bundle in bundles)


def run(command: list[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True)
    except subprocess.CalledProcessError as error:
        raise RuntimeError(
            f"saewidgets: building the JavaScript failed: `{' '.join(command)}` in {folder} ended with "
            f"{error.returncode}; its own message stands above."
        ) from error
