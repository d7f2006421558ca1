"""Share one core among a track's readers: its name, its client, its process."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.media.tracks.core import TrackCore
from metered_sync.media.tracks.track import RemoteTrack, core_of
from tests.conftest import run_script


class Client:
    """Has a track, as clients have."""


def test_a_track_is_called_by_its_name_or_its_id() -> None:
    assert TrackCore(IncomingTrack("video", id="7"), None).label == "video track '7'"
    named = TrackCore(IncomingTrack("audio", id="7", name="voice"), None)
    assert named.label == "audio track 'voice'"


READERS: dict[str, Callable[[RemoteTrack], Any]] = {
    "frames": lambda track: track.frames(),
    "capture": lambda track: track.capture(),
    "pcm": lambda track: track.pcm(),
    "iterator": lambda track: track.frames(mode="fifo"),
}


@pytest.mark.parametrize("how", list(READERS))
def test_each_reader_keeps_the_client_and_not_the_track(how: str) -> None:
    client = Client()
    incoming = IncomingTrack("audio" if how == "pcm" else "video", id="7")
    track = RemoteTrack(incoming, client)
    assert core_of(track).owner is client
    reader = READERS[how](track)
    there, gone = weakref.ref(client), weakref.ref(track)
    del client, track
    gc.collect()
    assert there() is not None
    assert gone() is None
    assert len(incoming.readers) == 1
    del reader
    gc.collect()
    assert there() is None
    assert incoming.readers == []


def test_a_forked_child_may_not_use_it() -> None:
    done = run_script(
        """
import os
from metered_sync import ForkedError
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.media.tracks.core import TrackCore
core = TrackCore(IncomingTrack("video", id="7"), None)
core.check_process()
if not (child := os.fork()):
    try:
        core.check_process()
    except ForkedError as error:
        os._exit(0 if "video track '7' was opened before" in str(error) else 1)
    os._exit(2)
assert os.waitpid(child, 0)[1] == 0
"""
    )
    assert (done.returncode, done.stderr) == (0, "")
