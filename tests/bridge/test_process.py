"""Test what happens after a fork and at the exit, in processes of their own."""

from __future__ import annotations

import itertools
import os
import time

import pytest

from tests.conftest import run_script

START = """
import os, sys, threading, time
from metered_sync.bridge import process
from metered_sync.bridge.process import after_fork, at_exit

def tell(*words):
    print(*words, flush=True)
"""


def leave(source: str, *, stderr: str = "") -> list[str]:
    """Run a script that prints the time when it ends; return its other lines."""
    done = run_script(START + source + "\ntell(time.monotonic())")
    ended = time.monotonic()
    assert done.returncode == 0
    assert stderr in done.stderr
    assert bool(stderr) or done.stderr == ""
    begun, *lines = [line for line in done.stdout.splitlines() if line]
    assert ended - float(begun) < 15  # (3 are the limit, and the interpreter has an end of its own)
    return lines


def test_the_stages_of_the_exit_come_in_order_twice() -> None:
    lines = leave("""
for stage in ("stop", "drain", "finish", "close"):
    at_exit(stage, lambda deadline, stage=stage: tell(stage))
""")
    assert lines == ["close", "finish", "drain", "stop"] * 2


def test_an_exit_function_that_raises_does_not_keep_the_others_from_running() -> None:
    lines = leave(
        """
def bad(deadline):
    raise LookupError("own mistake")
at_exit("close", bad)
at_exit("close", lambda deadline: tell("next"))
""",
        stderr="own mistake",
    )
    assert lines == ["next", "next"]


def test_the_exit_is_bounded_as_a_whole_and_each_stage_has_a_part_of_it() -> None:
    lines = leave("""
def slow(deadline):
    left = deadline.left()
    tell(left, time.monotonic() + left)
    time.sleep(left)
for stage in ("close", "finish", "drain", "stop"):
    at_exit(stage, slow)
""")
    given = [float(line.split()[0]) for line in lines]
    ends = [float(line.split()[1]) for line in lines]  # (a sleep that is too long moves none)
    assert given[0] == pytest.approx(1.5, abs=0.1)
    parts = [end - before for before, end in itertools.pairwise(ends[:4])]
    assert parts == pytest.approx([0.5, 0.25, 0.25], abs=0.1)
    assert given[4] == pytest.approx(0.6 * 0.25, abs=0.1)


def test_what_the_first_run_leaves_is_for_the_second() -> None:
    lines = leave("""
at_exit("stop", lambda deadline: tell(f"{deadline.left():.2f}"))
""")
    assert [float(line) for line in lines] == pytest.approx([2.5, 2.5], abs=0.2)


def test_ctrl_c_at_the_exit_ends_the_waits_and_not_the_work() -> None:
    lines = leave(
        """
def interrupted(deadline):
    raise KeyboardInterrupt
at_exit("close", interrupted)
at_exit("finish", lambda deadline: tell(deadline.left()))
""",
        stderr="KeyboardInterrupt",
    )
    assert lines == ["0.0", "0.0"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_functions_run_in_each_child_in_order_though_one_raises() -> None:
    lines = leave(
        """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
parent = os.getpid()
process.after_fork(lambda: tell("first", os.getpid() != parent))
def bad():
    raise LookupError("own mistake")
process.after_fork(bad)
process.after_fork(lambda: tell("last", os.getpid() != parent))
tell(time.monotonic())
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
""",
        stderr="own mistake",
    )
    assert lines[:-1] == ["first True", "last True"] * 2
