"""Compare what a type checker reports of the scripts in tests/typing with what they announce."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.conftest import ROOT

SCRIPTS = sorted((ROOT / "tests" / "typing").glob("*.py"))
MARK = re.compile(r"  # wrong$")

Lines = set[tuple[str, int]]
"""Names of scripts, and numbers of lines in them."""


def marked_lines() -> Lines:
    """Return the lines that the scripts mark as wrong: those, and no others, must be reported."""
    return {
        (script.name, number)
        for script in SCRIPTS
        for number, line in enumerate(script.read_text().splitlines(), 1)
        if MARK.search(line)
    }


def differences(reported: dict[tuple[str, int], str]) -> list[str]:
    """Say where a checker's report differs from the marks."""
    marked = marked_lines()
    unmarked = [f"{name}:{line}: {reported[name, line]}" for name, line in {*reported} - marked]
    silent = [f"{name}:{line}: not reported" for name, line in marked - {*reported}]
    return sorted(unmarked) + sorted(silent)


def pyright_report(output: str) -> dict[tuple[str, int], str]:
    """Return the first error that pyright reports, as JSON, of each line."""
    found: dict[tuple[str, int], str] = {}
    for one in json.loads(output)["generalDiagnostics"]:
        line = one["range"]["start"]["line"] + 1
        if one["severity"] == "error":
            found.setdefault((Path(one["file"]).name, line), one["message"])
    return found


def mypy_report(output: str) -> dict[tuple[str, int], str]:
    """Return the first error that mypy reports of each line."""
    found: dict[tuple[str, int], str] = {}
    for name, line, text in re.findall(r"^(.+?):(\d+): error: (.*)$", output, re.MULTILINE):
        found.setdefault((Path(name).name, int(line)), text)
    return found
