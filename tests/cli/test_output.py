"""Test what output makes of others' text, of tables and of progress."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metered_sync.cli import output
from metered_sync.local import LocalCloud
from tests.support.command_line import running

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=50)
@given(ANY_JSON)
def test_json_is_the_same_value_on_one_line_that_steers_nothing(value: object) -> None:
    text = output.json_text(value)
    assert json.loads(text) == value
    assert text == output.printable(text)
    text.encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\x1b[31m", "a\\u001b[31m"), ("\u202eabc", "\\u202eabc"), ("ü", "ü"), ("\udcff", "\\udcff")],
)
def test_others_text_cannot_steer_a_terminal(text: str, shown: str) -> None:
    assert output.printable(text) == shown


@pytest.mark.parametrize(
    ("environment", "colours"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours_are_for_terminals_that_want_them(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], colours: bool
) -> None:
    for name, value in ({"TERM": "xterm", "NO_COLOR": ""} | environment).items():
        monkeypatch.setenv(name, value)
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stream, contextlib.redirect_stdout(stream):
        shown = output.coloured("x", fg="red")
    os.close(ours)
    assert shown == ("\x1b[31mx\x1b[0m" if colours else "x")
    assert output.coloured("x", fg="red") == "x"  # no terminal


def test_a_table_for_a_pipe() -> None:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        output.table(("a", "b"), [(1, None), ("x\ty", "[red]")], empty="none")
    assert out.getvalue() == "1\t\nx\\u0009y\t[red]\n"


def test_progress_is_rare_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.redirect_stderr(io.StringIO()) as err, output.progress() as report:
        for _ in range(3):
            report("not yet")
    assert err.getvalue() == ""
    monkeypatch.setattr(output, "PROGRESS_PAUSE", 0.0)
    with contextlib.redirect_stderr(io.StringIO()) as err, output.progress() as report:
        report("one")
    assert err.getvalue() == "one\n"


def test_progress_on_a_terminal_leaves_stdout_alone(dev: LocalCloud) -> None:
    ours, theirs = pty.openpty()
    with running(
        "publish", "--local", "progress", "--json", "--rate", "0", stderr=theirs
    ) as process:
        os.close(theirs)
        out, _ = process.communicate("1\n" * 1500, timeout=60)
        assert (process.returncode, json.loads(out)) == (0, {"published": 1500})
    shown = b""
    with contextlib.suppress(OSError):
        while data := os.read(ours, 65536):
            shown += data
    os.close(ours)
    assert b" published, " in shown
    assert shown.endswith(b"\x1b[?25h\r\x1b[1A\x1b[2K")  # the cursor is back, the line is gone


def test_a_pipe_whose_reader_is_gone_is_noticed() -> None:
    source = """
import sys
from metered_sync.cli import output
sys.stdin.read()
sys.exit(0 if output.reader_is_gone() else 1)
"""
    with subprocess.Popen(
        [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.close()
        process.stdin.close()
        assert process.wait(30) == 0
