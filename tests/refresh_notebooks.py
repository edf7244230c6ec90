"""Executes the notebooks in place and keeps what may be committed: text outputs, no widget state, no timings.

python tests/refresh_notebooks.py [notebook ...]      (all of notebooks/ by default; `make notebooks` does the same)
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
KEPT = ("text/plain", "text/html")


def refresh(file: Path) -> None:
    """Execute one notebook in its folder and write it back with its text outputs."""
    notebook = nbformat.read(file, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=False,
        resources={"metadata": {"path": str(file.parent)}},
    )
    client.execute()
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in map(text_only, cell.outputs) if output is not None]
    nbformat.write(notebook, file)


def text_only(output: Any) -> Any | None:
    """An output with its text forms alone; None if it has none or went to stderr, which strict nbval cannot compare."""
    if output.output_type == "stream":
        return output if output.name == "stdout" else None
    if output.output_type not in ("display_data", "execute_result"):
        return output
    output.data = {kind: data for kind, data in output.data.items() if kind in KEPT}
    output.metadata = {}
    return output if output.data else None


if __name__ == "__main__":
    os.environ["ANYWIDGET_HMR"] = "0"
    for name in map(Path, sys.argv[1:]) if sys.argv[1:] else sorted(NOTEBOOKS.glob("*.ipynb")):
        refresh(Path(name))
        print(f"{name} executed")
