"""Rule 5: signal handlers, finalizers and Ctrl-C may come at any moment.

Calls that post work in signal handlers, and in finalizers that the collector runs; calls that wait
work there, or say that they cannot; nothing hangs; and Ctrl-C at whatever moment leaves everything
in order. See :mod:`tests.support.interrupted` for how the moments are met.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")

CORE = ("publish_nowait", "publish", "get", "get_nowait", "read", "write", "push", "pcm.get_nowait")
"""Calls that are interrupted at each of their moments, in the short run, too."""
POSTING = (
    *("publish_nowait", "send_nowait", "on, once, off", "events, close", "get_nowait", "Delivery"),
    *("properties", "push", "write", "clear", "end, stop", "stream", "DataChannel.send_nowait"),
    *("frames, close", "frames.get_nowait", "pcm.get_nowait", "on_frame, close"),
    "capture, release",
)
WAITING = (
    *("publish", "subscribe, close", "unsubscribe", "flush", "roster", "connect", "get"),
    *("wait_for", "Delivery.result", "DataChannel.send", "read", "capture.read", "pcm.get"),
    *("push and wait", "write and wait", "Source.wait", "add_track, remove_track", "Recorder.add"),
    "Recorder.start, stop",
)
ALL = POSTING + WAITING
SHORT_RUN: dict[str, tuple[float, int, tuple[str, ...]]] = {
    "signals": (0.15, 1, ALL),
    "finalizers": (0.1, 1, ALL),
    "each moment": (0, 4, CORE[:6]),
    "Ctrl-C": (0, 1, CORE),
}
"""Of each way to interrupt: seconds for each call, every how manieth moment, and the calls."""
LONG_RUN: dict[str, tuple[float, int, tuple[str, ...]]] = {
    "signals": (5, 1, ALL),
    "finalizers": (5, 1, ALL),
    "each moment": (0, 1, ALL),
    "Ctrl-C": (0, 1, ALL),
}


def run(
    plan: dict[str, tuple[float, int, tuple[str, ...]]], cloud: dict[str, str], timeout: float
) -> dict[str, Any]:
    """Interrupt calls in all ways, side by side; return what was wrong with each."""
    command = [sys.executable, "-m", "tests.support.interrupted"]
    processes = {
        way: subprocess.Popen(
            [*command, way, json.dumps(cloud), str(seconds), str(step), *calls],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for way, (seconds, step, calls) in plan.items()
    }
    results: dict[str, Any] = {}
    try:
        for way, process in processes.items():
            out, err = process.communicate(timeout=timeout)
            results[way] = json.loads(out) if process.returncode == 0 else err[-6000:]
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()
    return results


def check(results: dict[str, Any], way: str, call: str) -> None:
    """Fail where a call did not do what it must, or its process has hung."""
    if isinstance(results[way], str):
        pytest.fail(f"the process ended, or a call hung:\n{results[way]}")
    assert results[way][call] == []


@pytest.fixture(scope="module")
def results(served_cloud: dict[str, str]) -> dict[str, Any]:
    return run(SHORT_RUN, served_cloud, 150)


@pytest.mark.parametrize(
    ("way", "call"), [(way, call) for way, plan in SHORT_RUN.items() for call in plan[2]]
)
def test_a_call_may_interrupt_and_be_interrupted(
    results: dict[str, Any], way: str, call: str
) -> None:
    check(results, way, call)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("way", LONG_RUN.keys())
def test_at_every_moment(served_cloud: dict[str, str], way: str) -> None:
    plan = {way: LONG_RUN[way]}
    found = run(plan, served_cloud, 800)
    for call in plan[way][2]:
        check(found, way, call)
