"""What the benchmarks take from the library, and from the tests, is there."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))


def imported(script: Path) -> Iterator[tuple[str, str]]:
    """Yield modules of this project that a script imports from, each with a name."""
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            ours = node.module.partition(".")[0] in ("metered_sync", "tests")
            yield from ((node.module, alias.name) for alias in node.names if ours)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_what_it_imports_is_there(script: Path) -> None:
    for module, name in imported(script):
        found = importlib.import_module(module)
        package = hasattr(found, "__path__")
        there = hasattr(found, name) or (package and importlib.util.find_spec(f"{module}.{name}"))
        assert there, f"{module} has no {name}"


def test_there_are_benchmarks_that_import_the_library() -> None:
    assert len({script for script in SCRIPTS if list(imported(script))}) > 10
