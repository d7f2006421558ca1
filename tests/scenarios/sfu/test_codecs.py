"""Subscribe to tracks in codecs that cannot be decoded: an error, and nothing else suffers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from metered_sync import MediaError, RemoteTrack, SfuClient
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource
from metered_sync.wire import sdp
from metered_sync.wire.sdp import Codec, Section
from tests.conftest import wait_until
from tests.support.scripted_sfu import ScriptedSfu

OFFERED: dict[str, tuple[Codec, ...]] = {
    "VP9": (Codec(120, "VP9", 90000), Codec(121, "rtx", 90000, 1, "apt=120")),
    "AV1": (Codec(45, "AV1", 90000),),
    "H265": (Codec(122, "H265", 90000),),
    "mode 0": (Codec(123, "H264", 90000, 1, "profile-level-id=42e01f"),),
}


def offering(codecs: tuple[Codec, ...], *, only: bool) -> Callable[[int, Any], tuple[int, Any]]:
    """Have the SFU offer its newest pictures in other codecs, or with them first."""

    def change(section: Section) -> Section:
        return replace(section, codecs=codecs if only else (*codecs, *section.codecs))

    def spoil(status: int, body: Any) -> tuple[int, Any]:
        if "sessionDescription" in body:
            offer = sdp.parse(body["sessionDescription"]["sdp"])
            sending = [s for s in offer.sections if s.sends and s.kind == "video"]
            newest = max(sending, key=lambda s: int(s.mid[1:]), default=None)
            sections = tuple(change(s) if s is newest else s for s in offer.sections)
            body["sessionDescription"]["sdp"] = sdp.build(replace(offer, sections=sections))
        return status, body

    return spoil


def plays_on(track: RemoteTrack) -> None:
    seen = track.frames_received
    wait_until(lambda: track.frames_received > seen + 5, 20)


@pytest.mark.parametrize("only", [True, False])
def test_a_codec_that_cannot_be_decoded(shared_cloud: LocalCloud, only: bool) -> None:
    """Behind the SFU: subscribing says so, and the session goes on, with all that is in it."""
    options = shared_cloud.sfu_options()
    with (
        ScriptedSfu(shared_cloud.http_url) as scripted,
        SfuClient(**options) as sender,
        SfuClient(**options | {"url": scripted.url}) as receiver,
        PatternSource(160, 120, 15) as pattern,
        ToneSource(440) as tone,
    ):
        video, audio = sender.publish(pattern.video, name="v"), sender.publish(tone.audio, name="a")
        playing, session = receiver.subscribe(video), receiver.session_id
        plays_on(playing)
        for word, codecs in OFFERED.items():
            scripted.spoil["track/subscribe"] = offering(codecs, only=only)
            with pytest.raises(MediaError, match=word) as caught:
                receiver.subscribe([audio, video] if word == "AV1" else video, timeout=10)
            assert "VP8" in str(caught.value)
            assert 'codec="vp8"' in str(caught.value)
        scripted.spoil.clear()
        again, sound = receiver.subscribe([video, audio])
        back = receiver.publish(tone.audio, name="back")
        for track in (playing, again, sound, sender.subscribe(back)):
            plays_on(track)
        assert again.read(timeout=20).shape == (120, 160, 3)
        receiver.unsubscribe(again)
        assert [track.restarts for track in (playing, sound)] == [0, 0]
        assert (receiver.session_id, receiver.state) == (session, "connected")
        assert receiver.stats()["recoveries"] == 0
        if not only:
            return
        # Nor does it keep a lost session from being made again; the track that is meant ends.
        scripted.spoil["track/subscribe"] = offering(OFFERED["VP9"], only=only)
        shared_cloud.faults.kill_sfu_session(str(session))
        wait_until(lambda: playing.ended and receiver.state == "connected", 20)
        plays_on(sound)
        assert (receiver.stats()["recoveries"], sound.restarts) == (1, 1)
        with pytest.raises(MediaError, match="VP9"):
            playing.read(timeout=10)
