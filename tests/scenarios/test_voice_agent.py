"""The example of a voice agent: a caller speaks into the room, is answered, and interrupts."""

from __future__ import annotations

import importlib
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from metered_sync import Data, MeteredPeer
from tests.conftest import ROOT, missing, need, wait_until

EXAMPLE = ROOT / "examples" / "voice_agent"
SPEAKS = -45.0
"""dBFS above which the agent can be heard."""


def need_speech() -> None:
    """Skip where a program cannot speak, or not understand."""
    need("espeak-ng", "espeak-ng")
    if find_spec("pocketsphinx") is None:
        missing("needs pocketsphinx: pip install pocketsphinx")


@pytest.fixture
def speech(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example's module of ears and a mouth, for the caller."""
    need_speech()
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.delitem(sys.modules, "speech", raising=False)
    return importlib.import_module("speech")


@contextmanager
def agent(cloud: dict[str, str], room: str) -> Iterator[None]:
    """Run the example's program."""
    environment = {"METERED_URL": cloud["url"], "METERED_KEY": cloud["publishable_key"]}
    with subprocess.Popen(
        [sys.executable, "agent.py", room],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=EXAMPLE,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"listening in {room!r}\n"
            yield
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
            assert (process.returncode, err) == (0, ""), out + err
        finally:
            if process.poll() is None:
                process.kill()


def measure(track: Any, levels: list[float]) -> None:
    """Note how loud a track is, in dBFS, each 20 ms."""
    for samples in track.pcm(rate=16000, chunk=0.02):
        power = float(np.mean(np.square(samples / 32768)))
        levels.append(10 * math.log10(power) if power else -127.0)


def start(function: Any, *args: Any) -> None:
    threading.Thread(target=function, args=args, daemon=True).start()


def test_a_conversation(served_cloud: dict[str, str], speech: Any) -> None:
    options = {"url": served_cloud["url"], "api_key": served_cloud["publishable_key"]}
    mouth = speech.Mouth()
    levels: list[float] = []
    understood: list[str] = []
    with (
        agent(served_cloud, "voice/agent"),
        mouth.source,
        MeteredPeer(**options) as caller,
        caller.events(Data) as messages,
    ):
        caller.add_track(mouth.source.audio)
        caller.join("voice/agent")
        remote = caller.wait_for_peer(timeout=20)
        track = remote.track("audio", timeout=30)
        remote.wait_connected(timeout=30)
        start(measure, track, levels)
        words = speech.Ears(["you are welcome", "goodbye"]).listen(track)
        start(lambda: understood.extend(words))
        assert messages.get(timeout=30).data == {"listening": True}

        def silent() -> bool:
            """Whether nothing has been heard for 0.3 s."""
            return len(levels) > 15 and max(levels[-15:]) < SPEAKS

        def answer() -> dict[str, str]:
            """Return the next answer."""
            while "heard" not in (told := messages.get(timeout=30).data):
                assert told == {"interrupted": True}
            return dict(told)

        def ask(phrase: str) -> str:
            """Say a phrase until it is understood; return the answer."""
            for _ in range(3):  # sound that a busy machine has no time for is lost
                wait_until(silent, 30, "the agent has ended")
                mouth.say(phrase)
                told = answer()
                if told["heard"] == phrase:
                    return told["answer"]
                wait_until(lambda: levels[-1] > SPEAKS, 30, "the agent says that it is sorry")
            pytest.fail(f"{phrase!r} was not understood")

        # A phrase is understood and answered, in speech that can be understood in turn.
        assert ask("thank you") == "You are welcome."
        before = len(levels)
        wait_until(lambda: "you are welcome" in understood, 30, "the answer is understood")
        wait_until(silent, 30, "the agent has ended")
        spoken = [level for level in levels[before:] if level > SPEAKS]
        assert 0.3 < len(spoken) * 0.02 < 3
        assert max(spoken) > -30

        # A long answer, which the caller interrupts.
        assert len(ask("tell me a story")) > 300  # some 20 s
        wait_until(lambda: levels[-1] > SPEAKS, 20, "the story begins")
        mouth.say("the weather is nice today")  # a phrase that it does not know
        assert messages.get(timeout=30).data == {"interrupted": True}
        interrupted = time.monotonic()
        wait_until(silent, 20, "the story breaks off")
        assert time.monotonic() - interrupted < 5  # 20 ms, what was on its way, and the 0.3 s
        told = answer()
        assert told["heard"] == "?"
        assert told["answer"].startswith("Sorry")
        wait_until(lambda: levels[-1] > SPEAKS, 20, "that is answered, too")
