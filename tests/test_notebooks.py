"""Notebooks are committed executed, with text outputs only: what strict nbval compares must be there to compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
TEXT = {"text/plain", "text/html"}


def read(file: Path) -> Any:
    return nbformat.read(file, as_version=4)


def test_there_are_notebooks() -> None:
    assert [file.name for file in NOTEBOOKS if file.name == "01_quickstart.ipynb"]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.name)
def test_every_code_cell_was_executed_in_order(file: Path) -> None:
    """An unexecuted cell passes strict nbval whatever it does."""
    counts = [cell.execution_count for cell in read(file).cells if cell.cell_type == "code" and cell.source.strip()]
    assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.name)
def test_outputs_are_text_and_no_widget_state_is_kept(file: Path) -> None:
    notebook = read(file)
    assert "widgets" not in notebook.metadata
    wrong = []
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                wrong.append(f"cell {index}: an error")
            elif output.output_type == "stream" and output.name != "stdout":
                wrong.append(f"cell {index}: {output.name}")
            elif output.output_type in ("display_data", "execute_result") and set(output.data) - TEXT:
                wrong.append(f"cell {index}: {', '.join(sorted(set(output.data) - TEXT))}")
    assert wrong == []


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.name)
def test_outputs_hold_nothing_that_changes_from_run_to_run(file: Path) -> None:
    """Addresses of objects and folders of one machine."""
    texts = [
        output.get("text", "") + "".join(output.get("data", {}).values())
        for cell in read(file).cells
        for output in cell.get("outputs", [])
    ]
    assert [text for text in texts if " at 0x" in text or "/home/" in text or "/tmp/" in text] == []
