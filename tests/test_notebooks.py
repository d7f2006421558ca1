"""Every notebook runs from top to bottom in a real kernel, and still tells what it told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def kinds(cell: Any) -> list[str]:
    return [output.get("name", output.output_type) for output in cell.outputs]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    committed = nbformat.read(path, as_version=4)
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    options = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=90, resources=options).execute()
    for before, after in zip(committed.cells, notebook.cells, strict=True):
        if before.cell_type == "code":
            assert kinds(after) == kinds(before), before.source
            assert "stderr" not in kinds(after), after.outputs


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_secret_was_saved(path: Path) -> None:
    text = path.read_text()
    for mark in ("pk_live_", "sk_secret_", "sfu_secret_", "eyJ"):
        assert mark not in text


def test_there_are_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["01-pubsub"]
