"""Publish to an SFU that refuses the codec: it is told once, and all else goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metered_sync import (
    MediaError,
    Outage,
    RemoteTrack,
    ServerError,
    SfuClient,
    SfuMedia,
    from_file,
)
from metered_sync.local import LocalCloud
from metered_sync.testing import ToneSource
from metered_sync.wire import sdp
from metered_sync.wire.sdp import Codec, Section
from tests.support.encoded import write
from tests.support.rooms import pattern, peer
from tests.support.scripted_sfu import ScriptedSfu

REFUSALS: dict[str, Callable[[Section], Section]] = {
    "rejected": lambda s: replace(s, port=0),
    "rejected, without a transport": lambda s: Section(s.kind, s.mid, port=0, formats=s.formats),
    "rejected, without a mid": lambda s: Section(s.kind, "", port=0, formats=("0",)),
    "inactive": lambda s: replace(s, direction="inactive"),
    "in another codec": lambda s: replace(s, codecs=(Codec(120, "VP8", 90000),)),
}


def refusing(change: Callable[[Section], Section]) -> Callable[[int, Any], tuple[int, Any]]:
    """Have the SFU answer otherwise for sections that H.264 alone is sent in."""

    def spoil(status: int, body: Any) -> tuple[int, Any]:
        if "sessionDescription" in body:
            answer = sdp.parse(body["sessionDescription"]["sdp"])
            sections = tuple(
                change(s) if [c.name for c in s.codecs[:1]] == ["H264"] and s.receives else s
                for s in answer.sections
            )
            body["sessionDescription"]["sdp"] = sdp.build(replace(answer, sections=sections))
        return status, body

    return spoil


def is_tried(asked: Any) -> bool:
    """Say whether a request publishes something in H.264 alone."""
    offer = {s.mid: s for s in sdp.parse(asked["sessionDescription"]["sdp"]).sections}
    return any(offer[track["mid"]].codecs[0].name == "H264" for track in asked["tracks"])


def plays_on(track: RemoteTrack) -> None:
    with track.frames() as frames:  # (in rooms what nobody reads is not received)
        for _ in range(5):
            frames.get(timeout=20)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("refused")
    return write(folder / "film.mkv", size=(160, 96), profile="high", audio="libopus")


@pytest.fixture
def scripted(shared_cloud: LocalCloud) -> Iterator[ScriptedSfu]:
    with ScriptedSfu(shared_cloud.http_url) as scripted:
        yield scripted


def test_publishing_raises(shared_cloud: LocalCloud, scripted: ScriptedSfu, film: Path) -> None:
    options = shared_cloud.sfu_options()
    with (
        SfuClient(**options | {"url": scripted.url}) as sender,
        SfuClient(**options) as receiver,
        from_file(film, encoded=True, loop=True) as source,
        pattern() as plain,
    ):
        sound = receiver.subscribe(sender.publish(source.audio))
        for change in REFUSALS.values():
            scripted.spoil["track/publish"] = refusing(change)
            with pytest.raises(MediaError, match=r"SFU does not take H\.264 \(High .*'film'"):
                sender.publish([plain.video, source.video], name="film")
            scripted.spoil.clear()
        (listed,) = receiver.tracks(str(sender.session_id))  # not the other one of the round
        assert listed.kind == "audio"
        plays_on(sound)
        for track in receiver.subscribe(sender.publish([plain.video, source.video])):
            plays_on(track)
        assert sender.stats()["recoveries"] == 0
        assert sound.restarts == 0


def test_after_a_recovery(
    shared_cloud: LocalCloud, scripted: ScriptedSfu, film: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What a new session does not take ends; the rest is published again."""
    options = shared_cloud.sfu_options()
    with (
        SfuClient(**options | {"url": scripted.url}) as sender,
        SfuClient(**options) as receiver,
        from_file(film, encoded=True, loop=True) as source,
        sender.events(Outage) as events,
    ):
        _, audio = sender.publish([source.video, source.audio], name="film")
        sound = receiver.subscribe(audio)
        scripted.spoil["track/publish"] = refusing(REFUSALS["rejected"])
        shared_cloud.faults.kill_sfu_session(str(sender.session_id))
        events.get(timeout=20)
        assert [one["kind"] for one in sender.stats()["publications"]] == ["audio"]
        assert "a track is published no longer: SfuClient: the SFU does not take" in caplog.text
        plays_on(sound)


@pytest.mark.parametrize("way", ["rejected", "HTTP 400"])
def test_a_room_goes_on(
    shared_cloud: LocalCloud, scripted: ScriptedSfu, film: Path, way: str
) -> None:
    refuse = refusing(REFUSALS["rejected"])

    def spoil(status: int, body: Any) -> tuple[int, Any]:
        if way == "rejected":
            return refuse(status, body)
        if is_tried(scripted.seen[-1].body):
            return 400, {"error": "bad_track", "message": "no codec that is known"}
        return status, body

    scripted.spoil["track/publish"] = spoil
    media = SfuMedia(**shared_cloud.sfu_options() | {"url": scripted.url})
    with (
        from_file(film, encoded=True, loop=True) as source,
        ToneSource(440) as tone,
        pattern() as plain,
        peer(shared_cloud, "ann", through="sfu", media=media) as ann,
        peer(shared_cloud, "bob", through="sfu") as bob,
        ann.events(ServerError) as errors,
    ):
        ann.add_track(source.video)
        ann.add_track(tone.audio)
        ann.join("refused")
        error = errors.get(timeout=20)
        assert error.code == "sfu_refused"
        assert ("does not take H.264" if way == "rejected" else "bad_track") in error.message
        bob.join("refused")
        remote = bob.wait_for_peer("ann", timeout=20)
        plays_on(remote.track("audio", timeout=20))
        # A track that is added later is published, and the one that was refused is not tried again.
        ann.add_track(plain.video)
        assert remote.track("video", timeout=20).read(timeout=20).shape == (120, 160, 3)
        asked = [seen.body for seen in scripted.seen if seen.call == "track/publish"]
        assert sum(map(is_tried, asked)) <= 2  # with the other one, then alone
        assert len(errors) == 0
