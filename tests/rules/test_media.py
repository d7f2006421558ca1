"""Hold media to the rules: SFU clients, tracks and sources."""

from __future__ import annotations

import gc
import io
import threading
import time
import warnings
from contextlib import suppress
from typing import Any

import pytest

from metered_sync import MeteredError, MeteredTimeoutError, SfuClient, WrongThreadError, from_file
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource
from tests.conftest import ROOT, run_script, wait_until
from tests.rules.test_fork import START as FORK
from tests.rules.test_interrupt import interrupt
from tests.rules.test_leaks import check

CLIP = str(ROOT / "metered_sync" / "demo" / "bunny.mp4")

START = """
import json, sys, threading, time
from metered_sync import *
from metered_sync import SfuClient, from_file
from metered_sync.testing import PatternSource, ToneSource
facts = json.loads(sys.argv[1])
options = dict(url=facts["http_url"], app_id=facts["sfu_app_id"], secret=facts["sfu_secret"])
"""

BOTH_WAYS = """
one, two = SfuClient(**options), SfuClient(**options)
one.connect(); two.connect()
picture = two.subscribe(one.publish(PatternSource(160, 120, 15).video))
sound = one.subscribe(two.publish(ToneSource(frequency=440).audio))
picture.read(timeout=20)
sound.frames().get(timeout=20)
"""


@pytest.fixture
def facts(served_cloud: dict[str, str]) -> str:
    import json

    return json.dumps(served_cloud)


# --- 2: Ctrl-C ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wait",
    [
        "picture.read(timeout=60)",
        "frames.get()",
        "for frame in frames: pass",
        "idle.wait()",
    ],
)
def test_ctrl_c_ends_waits_for_media(wait: str, facts: str) -> None:
    source = f"""{START}
try:
    with SfuClient(**options) as one, SfuClient(**options) as two:
        pattern = PatternSource(160, 120, 15)
        picture = two.subscribe(one.publish(pattern.video))
        picture.read(timeout=20)
        idle = ToneSource(frequency=440)
        frames = picture.frames()
        pattern.stop()
        print("ready", flush=True)
        try:
            {wait}
            while True:
                {wait}
        except KeyboardInterrupt:
            print("interrupted", two.state)
            raise
except KeyboardInterrupt:
    print("closed", two.state)
    sys.exit(7)
"""
    status, lines, err, seconds = interrupt(source, facts)
    assert (status, lines, err) == (7, ["interrupted connected", "closed closed"], "")
    assert seconds < 20  # (a machine may be busy; a hang takes longer)


# --- 5: the loop thread ---------------------------------------------------------------


def test_blocking_calls_on_the_loop_thread_are_refused(options: dict[str, str]) -> None:
    with SfuClient(**options) as client, ToneSource(frequency=440) as tone:
        track = client.subscribe(client.publish(tone.audio))
        errors: list[BaseException] = []
        done = threading.Event()

        def on_the_loop() -> None:
            for call in (
                client.sessions,
                client.close,
                lambda: client.publish(tone.audio),
                lambda: track.frames().get(),
                lambda: tone.wait(),
            ):
                try:
                    call()
                except BaseException as error:
                    errors.append(error)
            done.set()

        engine: Any = client._engine
        engine.post(on_the_loop)
        assert done.wait(20)
        assert [type(error) for error in errors] == [WrongThreadError] * 5


# --- 7: fork --------------------------------------------------------------------------


def test_fork(served_cloud: dict[str, str]) -> None:
    source = f"""
from metered_sync import SfuClient, from_file
from metered_sync.testing import ToneSource
sfu = dict(url=sys.argv[3], app_id=sys.argv[4], secret=sys.argv[5])
client = SfuClient(**sfu)
client.connect()
tone, clip = ToneSource(frequency=440), from_file({CLIP!r})
published = client.publish(tone.audio)
track = client.subscribe(published)
frames = track.frames()
frames.get(timeout=20)
def child():
    for call in (
        client.sessions, client.connect, client.close, lambda: client.publish(clip),
        lambda: client.subscribe(published), published.close, frames.get, track.frames,
        tone.wait, tone.stop, clip.stop, lambda: clip.seek(1),
    ):
        refused(call)
    with SfuClient(**sfu) as mine, ToneSource(frequency=880) as mine_too:
        heard = mine.subscribe(mine.publish(mine_too.audio))
        assert heard.frames().get(timeout=20)
assert in_child(child) == 0
for _ in range(5):
    frames.get(timeout=20)
assert len(client.sessions()) >= 1
client.close(); tone.stop(); clip.stop()
"""
    done = run_script(
        FORK + source,
        served_cloud["url"],
        served_cloud["publishable_key"],
        served_cloud["http_url"],
        served_cloud["sfu_app_id"],
        served_cloud["sfu_secret"],
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


# --- 8: exit --------------------------------------------------------------------------

LEAVE = {
    "media flows both ways": (BOTH_WAYS, 0),
    "a reader is blocked": (
        BOTH_WAYS
        + "def read():\n    try:\n        list(picture.frames())\n    except MeteredError: pass\n"
        "threading.Thread(target=read).start()\ntime.sleep(0.3)",
        0,
    ),
    "a file plays": (
        "one = SfuClient(**options)\none.connect()\n"
        f"clip = from_file({CLIP!r}, loop=True)\none.publish(clip)\ntime.sleep(0.5)",
        0,
    ),
    "after sys.exit": (BOTH_WAYS + "sys.exit(5)", 5),
    "an HTTP call hangs": (
        "import socket\nserver = socket.create_server(('127.0.0.1', 0))\n"
        "options['url'] = f'http://127.0.0.1:{server.getsockname()[1]}'\n"
        "def connect():\n    try:\n        SfuClient(**options).connect(timeout=60)\n"
        "    except MeteredError: pass\n"
        "threading.Thread(target=connect, daemon=True).start()\ntime.sleep(0.5)",
        0,
    ),
}


@pytest.mark.parametrize("rounds", [1, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("source", "status"), LEAVE.values(), ids=LEAVE.keys())
def test_exit(source: str, status: int, rounds: int, facts: str, options: dict[str, str]) -> None:
    for _ in range(rounds):
        marked = START + source.replace("sys.exit", "print(time.monotonic(), flush=True); sys.exit")
        if "sys.exit" not in source:
            marked += "\nprint(time.monotonic(), flush=True)"
        done = run_script(marked, facts)
        ended = time.monotonic()
        assert (done.returncode, done.stderr) == (status, "")
        assert ended - float(done.stdout.split()[-1]) < 15  # (3 are the limit)
    with SfuClient(**options) as client:
        # Its sessions are gone; a goodbye that UDP lost is made up for by the silence.
        wait_until(lambda: len(client.sessions()) == 1, 30)


# --- 9: leaks -------------------------------------------------------------------------


def test_clients_sources_and_tracks_leave_nothing(options: dict[str, str]) -> None:
    def round_() -> None:
        with SfuClient(**options) as client, ToneSource(frequency=440) as tone:
            track = client.subscribe(client.publish(tone.audio))
            track.frames().get(timeout=20)

    check(round_, rounds=25)


def test_subscriptions_of_one_session_leave_nothing_but_their_sections(
    options: dict[str, str],
) -> None:
    with SfuClient(**options) as client, ToneSource(frequency=440) as tone:
        track = client.subscribe(client.publish(tone.audio))

        def round_() -> None:
            with track.frames() as frames:
                frames.get(timeout=20)

        check(round_, rounds=30)  # aiortc's own buffers move meanwhile
        assert len(track._core.incoming.readers) == 0


def test_clients_that_fail_leave_nothing(options: dict[str, str]) -> None:
    def refused() -> None:
        client = SfuClient(**{**options, "secret": "wrong"})
        with suppress(MeteredError):
            client.connect()
        client.close()

    def late() -> None:
        client = SfuClient(**options)
        with suppress(MeteredTimeoutError):
            client.connect(timeout=0.005)
        client.close()

    check(refused, rounds=50)
    check(late, rounds=50)


def test_sources_that_nobody_consumes(options: dict[str, str]) -> None:
    def round_() -> None:
        with from_file(CLIP), PatternSource(160, 120, 15), ToneSource(frequency=440):
            pass
        from_file(CLIP)

    check(round_, rounds=25)


def test_a_forgotten_client_is_closed_and_says_so(options: dict[str, str]) -> None:
    client = SfuClient(**options)
    client.connect()
    link = client._link
    tone = ToneSource(frequency=440)
    track = client.subscribe(client.publish(tone.audio))
    frames = track.frames()
    frames.get(timeout=20)
    for _ in range(5):
        track.frames()  # readers that nobody keeps do not pile up
    gc.collect()
    assert len(track._core.incoming.readers) == 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del client, track, frames
        gc.collect()
    tone.stop()
    assert any("SfuClient was not closed" in str(w.message) for w in caught)
    assert link is not None
    wait_until(lambda: link.state == "closed")


# --- 10: secrets ----------------------------------------------------------------------


def test_no_secret_is_shown(log: io.StringIO) -> None:
    output: list[str] = []
    with LocalCloud() as cloud:
        secret = cloud.sfu_secret
        with SfuClient(**cloud.sfu_options()) as client, ToneSource(frequency=440) as tone:
            track = client.subscribe(client.publish(tone.audio))
            track.frames().get(timeout=20)
            output += [repr(client), repr(track), repr(client._link), repr(client._options)]
            link: Any = client._link
            password = link.session.pc.localDescription.sdp.split("a=ice-pwd:")[1].split()[0]
            output.append(repr(client.sessions()) + repr(client.tracks(str(client.session_id))))
        with pytest.raises(MeteredError) as caught:
            SfuClient(**{**cloud.sfu_options(), "app_id": "wrong"}).connect()
        output.append(f"{caught.value!r} {vars(caught.value)}")
    everything = log.getvalue() + "".join(output)
    assert "a=ice-pwd:…" in everything  # descriptions were logged, without it
    assert password not in everything
    assert secret not in everything


# --- 1: deadlines ---------------------------------------------------------------------


def test_a_negotiation_that_runs_out_of_time_leaves_a_clear_state(
    options: dict[str, str],
) -> None:
    with SfuClient(**options) as sender, ToneSource(frequency=440) as tone:
        published = sender.publish(tone.audio)
        for timeout in (0, 0.001, 0.003, 0.006):
            client = SfuClient(**options)
            client.connect()
            with suppress(MeteredTimeoutError):
                client.subscribe(published, timeout=timeout)
            # Usable or closed, never in between.
            if client.state == "closed":
                with pytest.raises(MeteredError, match="broke off"):
                    client.subscribe(published)
            else:
                track = client.subscribe(published, timeout=10)
                assert track.frames().get(timeout=20) is not None
            client.close()
