"""Every notebook runs from top to bottom in a real kernel, and still tells what it told."""

from __future__ import annotations

import configparser
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from tests.conftest import ROOT, run_script
from tests.scenarios.test_voice_agent import need_speech

STORIES = [
    "01-pubsub",
    "02-room",
    "03-sfu",
    "04-voice-agent",
    "05-recording",
    "06-testing-your-app",
    "07-room-of-a-dozen",
]
LONG = ("04-voice-agent", "05-recording", "06-testing-your-app")
"""Notebooks that take long, and whose subjects have scenarios of their own."""
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_SIZE = 400_000
"""Bytes of a committed notebook, its pictures included."""
PATHS = re.compile(r"(?<![\w.])/(?:home|Users|private|root|tmp|usr|var|work)\b|\b[A-Z]:\\")
"""How a path begins that is of one machine only."""
NUMBERS = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d+(?:\.\d+)?"
"""What may differ from run to run: random ids, and measurements."""

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def fonts() -> None:
    """Let matplotlib list the machine's fonts; in a notebook it would tell of it, on stderr."""
    run_script("import matplotlib.font_manager", timeout=100)


def outputs(cell: Any) -> list[tuple[str, str]]:
    """Return what a cell shows: kind and text; what is printed in two goes is one."""
    shown = [
        (
            output.get("name", output.output_type),
            output.text if "text" in output else output.get("data", {}).get("text/plain", ""),
        )
        for output in cell.outputs
    ]
    return [
        (kind, "".join(text for _, text in group))
        for kind, group in itertools.groupby(shown, key=lambda one: one[0])
    ]


def code_cells(path: Path) -> Iterator[Any]:
    notebook = nbformat.read(path, as_version=4)
    return (cell for cell in notebook.cells if cell.cell_type == "code")


def without_numbers(shown: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(kind, re.sub(NUMBERS, "#", text)) for kind, text in shown]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=pytest.mark.slow if path.stem in LONG else ())
        for path in NOTEBOOKS
    ],
)
@pytest.mark.timeout(300)
def test_a_notebook_runs(
    path: Path, tmp_path: Path, fonts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CI", "BUILD_NUMBER"):  # pytest, in 06, is more talkative where one is set
        monkeypatch.delenv(name, raising=False)
    # (An environment in which the library was installed before it had the plug-in, for 06.)
    monkeypatch.setenv("PYTEST_PLUGINS", "metered_sync.testing.pytest_plugin")
    if path.stem == "04-voice-agent":
        need_speech()
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    options = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=120, resources=options).execute()
    ran = (cell for cell in notebook.cells if cell.cell_type == "code")
    for before, after in zip(code_cells(path), ran, strict=True):
        assert "stderr" not in dict(outputs(after)), after.outputs
        assert without_numbers(outputs(after)) == without_numbers(outputs(before)), after.source
    assert not list(tmp_path.iterdir())  # it leaves nothing behind


@each
def test_it_was_saved_as_it_ran(path: Path) -> None:
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))
    assert path.stat().st_size < MAX_SIZE


@each
def test_nothing_of_the_machine_was_saved(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            for kind in [kind for kind in output.get("data", {}) if kind.startswith("image/")]:
                del output.data[kind]  # any three letters may stand in one by chance
    text = re.sub(r"base64,[\w+/]+", "", nbformat.writes(notebook))
    for mark in ("pk_live_", "sk_secret_", "sfu_secret_", "eyJ"):
        assert mark not in text
    for cell in code_cells(path):
        for _, shown in outputs(cell):
            assert not PATHS.search(shown), shown


def test_there_are_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == STORIES


def test_each_has_a_line_in_the_readme() -> None:
    text = (ROOT / "notebooks" / "README.md").read_text()
    assert re.findall(r"^\| \[(.*?)\]\(\1\.ipynb\) \|", text, re.MULTILINE) == STORIES


PACKAGES = {"IPython": "ipykernel", "PIL": "pillow", "doorbell": ""}
"""The packages of modules with another name; none for a module that its notebook writes."""


@each
def test_a_notebook_says_what_it_needs_besides_the_extra_all(path: Path) -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extra = setup["options.extras_require"]["all"] + setup["options"]["install_requires"]
    had = {re.split(r"[^\w-]", line, maxsplit=1)[0] for line in extra.split("\n")} | {
        "",
        "ipykernel",
    }
    first = nbformat.read(path, as_version=4).cells[0].source
    code = "\n".join(cell.source for cell in code_cells(path))
    modules = re.findall(r"^ *(?:import|from) (\w+)", code, re.MULTILINE)
    programs = re.findall(r"\[\"(espeak-ng|ffmpeg|ffplay)\"", code)
    others = {
        module for module in modules if module not in {*sys.stdlib_module_names, "metered_sync"}
    }
    needed = {PACKAGES.get(module, module) for module in others} - had
    assert all(f"`pip install {package}`" in first for package in needed), needed
    assert all(f"`apt install {program}`" in first for program in programs), programs
    if path.stem == "04-voice-agent":
        assert (needed, set(programs)) == ({"pocketsphinx"}, {"espeak-ng"})
