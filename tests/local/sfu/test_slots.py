"""Test what becomes of one media section: taken, published in, subscribed in, given up."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from metered_sync.local.sfu.forward import PublishedTrack, TrackSubscription
from metered_sync.local.sfu.slots import Formats, LocalTransport, Slot
from metered_sync.wire.sdp import Codec, Extension, Fingerprint, Section
from metered_sync.wire.sfu import PublishTrack
from metered_sync.wire.timings import DEFAULT_TIMINGS

VP8, RTX, AV1 = Codec(96, "VP8", 90000), Codec(97, "rtx", 90000), Codec(45, "AV1", 90000)
MID = Extension(4, "urn:ietf:params:rtp-hdrext:sdes:mid")
ODD = Extension(5, "urn:x-hop-by-hop")
SECTION = Section("video", "0", codecs=(VP8, RTX), extensions=(MID, ODD), msid=("stream", "camera"))
TRANSPORT = LocalTransport("ufrag", "HUSH", Fingerprint("sha-256", "AA"), ("1 1 udp",), "passive")


class Nowhere:
    """A client that is told nothing."""

    def send_rtp(self, packet: bytes) -> None: ...

    def send_rtcp(self, packet: bytes) -> None: ...


def make(kind: str, mid: str, track_id: str) -> PublishedTrack:
    return PublishedTrack(
        session_id="s",
        track_id=track_id,
        kind=kind,
        mid=mid,
        path=Nowhere(),
        rtcp_ssrc=1,
        timings=DEFAULT_TIMINGS,
    )


def run(story: Callable[[], Any]) -> None:
    async def main() -> None:
        story()

    asyncio.run(main())


def taken(section: Section = SECTION) -> Slot:
    slot = Slot(section)
    assert slot.take(section)
    slot.announce(section, (), make)
    return slot


def test_a_section_is_taken_with_what_the_sfu_forwards() -> None:
    slot = Slot(SECTION)
    assert slot.take(SECTION)
    assert [codec.name for codec in slot.codecs] == ["VP8"]
    assert slot.extensions == (MID,)
    assert slot.client_sends
    assert slot.client_receives


@pytest.mark.parametrize(
    "changes",
    [{"codecs": (RTX,)}, {"codecs": ()}, {"protocol": "RTP/AVP"}, {"port": 0}, {"kind": "text"}],
)
def test_sections_that_cannot_be_taken(changes: dict[str, Any]) -> None:
    section = dataclasses.replace(SECTION, **changes)
    assert not Slot(section).take(section)


def test_a_section_for_data_is_taken() -> None:
    section = Section("application", "1", protocol="UDP/DTLS/SCTP", sctp_port=5000)
    slot = Slot(section)
    assert slot.take(section)
    assert not slot.is_media
    answer = slot.answer_section(TRANSPORT)
    assert (answer.direction, answer.sctp_port, answer.rtcp_mux) == ("sendrecv", 5000, False)


def test_an_announced_track_has_the_id_of_its_msid_unless_it_is_taken() -> None:
    def story() -> None:
        slot = taken()
        assert slot.publishes("camera")
        assert slot.track is not None
        assert not slot.track.listed
        other = Slot(SECTION)
        other.take(SECTION)
        other.announce(SECTION, {"camera"}, make)
        assert not other.publishes("camera")

    run(story)


def test_an_announced_track_that_never_came_goes_when_the_section_stops_sending() -> None:
    def story() -> None:
        slot = taken()
        silent = dataclasses.replace(SECTION, direction="recvonly")
        slot.announce(silent, (), make)
        assert slot.track is None
        slot = taken()
        assert slot.track is not None
        slot.track.listed = True
        slot.announce(silent, (), make)
        assert slot.publishes("camera")

    run(story)


def test_another_msid_is_another_track_unless_it_was_named() -> None:
    def story() -> None:
        other = dataclasses.replace(SECTION, msid=("stream", "screen"))
        slot = taken()
        slot.announce(other, (), make)
        assert slot.publishes("screen")
        slot.publish(PublishTrack("mine", "0", "a name"), make)
        assert slot.track is not None
        assert (slot.track.track_id, slot.track.name, slot.track.listed) == ("mine", "a name", True)
        slot.announce(SECTION, (), make)
        assert slot.publishes("mine")

    run(story)


def test_a_closed_track_comes_back_with_another_msid_only() -> None:
    def story() -> None:
        slot = taken()
        slot.close_track(SECTION.msid)
        slot.announce(SECTION, (), make)
        assert slot.track is None
        slot.announce(dataclasses.replace(SECTION, msid=("stream", "screen")), (), make)
        assert slot.publishes("screen")

    run(story)


def test_a_subscription_and_a_track_share_a_section() -> None:
    def story() -> None:
        slot = taken()
        theirs = make("video", "7", "theirs")
        subscription = TrackSubscription(theirs, mid="0", ssrc=9, track_id="own", path=Nowhere())
        slot.offer(subscription, (VP8,), (MID,))
        assert slot.receives("theirs")
        assert slot.receives("own")
        offered = slot.offer_section(dataclasses.replace(TRANSPORT, setup="actpass"))
        assert (offered.direction, offered.ssrcs) == ("sendrecv", (9,))
        assert offered.msid == ("s", "own")
        slot.close_subscription()
        assert slot.subscription is None
        assert not slot.spent  # the client's own track is still in it
        assert slot.answer_section(TRANSPORT).direction == "recvonly"

    run(story)


def test_a_spent_section_is_offered_for_rejection() -> None:
    def story() -> None:
        slot = Slot(Section("video", "s0"))
        theirs = make("video", "7", "theirs")
        slot.offer(
            TrackSubscription(theirs, mid="s0", ssrc=9, track_id="own", path=Nowhere()), (VP8,), ()
        )
        theirs.end()
        slot.release()
        assert slot.spent
        offered = slot.offer_section(TRANSPORT)
        assert offered.rejected
        assert offered.codecs == (VP8,)  # aiortc wants at least one
        slot.reject()
        assert slot.answer_section(TRANSPORT).rejected

    run(story)


def test_formats_are_remembered_and_never_renumbered() -> None:
    formats = Formats()
    assert [codec.name for codec in formats.codecs("audio")][:1] == ["opus"]
    formats.learn("video", (VP8, RTX), (MID,))
    formats.learn("video", (AV1, Codec(96, "H264", 90000)), (Extension(9, MID.uri), ODD))
    assert [(codec.payload_type, codec.name) for codec in formats.codecs("video")] == [
        (96, "VP8"),
        (45, "AV1"),
    ]
    assert formats.extensions("video") == (MID,)
    assert formats.payload_types == {96, 97, 45}
    assert {codec.payload_type for codec in formats.codecs("audio")}.isdisjoint({96, 97, 45})
    assert {item.uri: item.id for item in formats.extensions("audio")}[MID.uri] == MID.id


def test_the_password_is_not_shown() -> None:
    assert "HUSH" not in repr(TRANSPORT)
