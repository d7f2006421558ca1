"""Look for the private names of aiortc and aioice, and use each, with the versions installed.

Run this file with a new version first: it tells what is missing, and what is lost by that.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import aiortc.rtcrtpreceiver
import pytest
from aiortc import RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription
from aiortc.contrib.media import MediaRelay
from aiortc.mediastreams import MediaStreamTrack

from metered_sync.bridge.reader import Reader
from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.engine.webrtc import aiortc_private, ice
from metered_sync.engine.webrtc.aiortc_private import Capability, capabilities
from metered_sync.engine.webrtc.encoding import pin_bitrate
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.engine.webrtc.peer_connection import gather_on, peer_connection
from metered_sync.errors import NegotiationFailedError
from metered_sync.testing import PatternSource
from tests.conftest import ROOT

NEEDS = aiortc_private._needs()
NAMES = [(need, name) for need in NEEDS for name in need.names]


@pytest.fixture
def unprobed() -> Iterator[None]:
    """Have this version looked at anew, now and after the test."""
    capabilities.cache_clear()
    yield
    capabilities.cache_clear()


@pytest.fixture
def nothing(unprobed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a version had none of these names."""
    lacking = tuple(
        need._replace(names=tuple(f"_no{name}" for name in need.names)) for need in NEEDS
    )
    monkeypatch.setattr(aiortc_private, "_needs", lambda: lacking)


def run(test: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        gather_on.set("127.0.0.1")
        await asyncio.wait_for(test, 60)

    asyncio.run(bounded())


async def until(condition: Callable[[], object], what: str = "") -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


async def negotiate(near: RTCPeerConnection, far: RTCPeerConnection) -> None:
    await near.setLocalDescription(await near.createOffer())
    await far.setRemoteDescription(near.localDescription)
    await far.setLocalDescription(await far.createAnswer())
    await near.setRemoteDescription(far.localDescription)


# --- looking --------------------------------------------------------------------------


def test_this_version_has_everything(unprobed: None, caplog: pytest.LogCaptureFixture) -> None:
    found = capabilities()
    assert caplog.text == ""
    assert found == frozenset(Capability)


def test_every_capability_is_looked_for() -> None:
    assert {need.capability for need in NEEDS} == {*Capability}


@pytest.mark.usefixtures("unprobed")
@pytest.mark.parametrize(("need", "name"), NAMES, ids=lambda value: getattr(value, "method", value))
def test_what_is_missing_is_told_with_what_is_lost(
    need: Any, name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed = need._replace(names=("_renamed",))
    monkeypatch.setattr(
        aiortc_private, "_needs", lambda: tuple(renamed if n is need else n for n in NEEDS)
    )
    assert capabilities() == frozenset(Capability) - {need.capability}
    capabilities()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "_renamed" in record.getMessage()
    assert need.capability.value in record.getMessage()


@pytest.mark.usefixtures("nothing")
def test_all_that_is_missing_is_told_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    assert capabilities() == frozenset()
    (record,) = caplog.records
    for capability in Capability:
        assert capability.value in record.getMessage()
    assert "\n" not in record.getMessage()


@pytest.mark.usefixtures("unprobed")
def test_receivers_are_tried_with_packets(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ignore(*_args: object) -> None:
        pass

    monkeypatch.setattr(RTCRtpReceiver, "_handle_rtp_packet", ignore)
    assert capabilities() == frozenset(Capability) - {Capability.INTAKES}
    (record,) = caplog.records
    assert "handing frames over" in record.getMessage()


@pytest.mark.usefixtures("unprobed")
def test_a_receiver_that_waits_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait(*_args: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(RTCRtpReceiver, "_handle_rtp_packet", wait)

    async def test() -> None:
        assert Capability.INTAKES not in capabilities()

    run(test())


def test_private_names_are_in_one_file() -> None:
    ours = {  # names that our own classes have as well
        "_connection", "_enabled", "_loop", "_queue", "recv", "pack", "timeout",
        "target_bitrate", "turn_server", "get_host_addresses",
    }  # fmt: skip
    names = "|".join(sorted({name for _, name in NAMES} - ours))
    pattern = re.compile(rf"_RTC[A-Z]\w*__|(?:\.|\"|')(?:{names})\b")
    for path in sorted((ROOT / "metered_sync" / "engine").rglob("*.py")):
        if path.name != "aiortc_private.py":
            assert not pattern.findall(path.read_text()), path


# --- using ----------------------------------------------------------------------------


class Ends:
    """Two peer connections, with a track of pictures from one to the other."""

    def __init__(self) -> None:
        self.near, self.far = peer_connection(()), peer_connection(())
        self.source = PatternSource(160, 120, 15)
        assert self.source.video is not None
        self.local = LocalTrack(self.source.video)
        self.outlet = self.local.outlet()
        self.transceiver = self.near.addTransceiver(self.outlet, direction="sendonly")
        self.outlet.attach(self.transceiver.sender)
        self.channel = self.near.createDataChannel("chat")
        self.received = IncomingTrack("video", id="t")
        self.reader: Reader[Any] = Reader("reader")
        self.received.add(self.reader)
        self.tasks: list[asyncio.Task[None]] = []
        self.far.on("track", self._on_track)

    def _on_track(self, track: MediaStreamTrack) -> None:
        (transceiver,) = self.far.getTransceivers()
        self.received.take_over(transceiver.receiver, ())
        self.tasks.append(asyncio.ensure_future(self.received.run(track)))

    async def connect(self) -> None:
        for pc in (self.near, self.far):
            for transport in ice.transports(pc):
                aiortc_private.bound_gathering(transport, 1.0)
            aiortc_private.bundle_all(pc)
        await negotiate(self.near, self.far)
        pin_bitrate(self.transceiver, 400_000)
        await until(lambda: self.near.connectionState == "connected", "connection")

    async def sees(self, more: int = 5) -> None:
        frames = self.received.decoded
        await until(lambda: self.received.decoded >= frames + more, "pictures")

    async def close(self) -> None:
        transports = [*ice.transports(self.near), *ice.transports(self.far)]
        await self.near.close()
        await self.far.close()
        for transport in transports:
            await aiortc_private.end_checks(transport)
        self.local.close()
        self.source.stop()
        await asyncio.gather(*self.tasks)


def test_everything_is_used() -> None:
    async def test() -> None:
        ends = Ends()
        await ends.connect()
        await ends.sees()
        assert aiortc_private.encoder_of(ends.transceiver.sender) is not None
        assert ends.outlet.encoder is not None  # it takes what is encoded here
        assert ends.received.received.packets > 0
        assert ends.received.latency > 0
        assert not aiortc_private.discards(ends.transceiver.sender)
        assert aiortc_private.first_codec(ends.transceiver) == "vp8"
        (transport,) = ice.transports(ends.near)
        assert ice.path(transport) == {"local": "host", "remote": "host"}
        # Making an offer forgets what was agreed on, and it is restored.
        codecs = list(ends.transceiver._codecs)
        restore = aiortc_private.keep_agreed(ends.near)
        offer = await ends.near.createOffer()
        restore()
        assert ends.transceiver._codecs == codecs
        # An offer is taken back, and one of the other side taken.
        index = aiortc_private.section_index(ends.transceiver, 99)
        await ends.near.setLocalDescription(offer)
        assert aiortc_private.take_offer_back(ends.near, ())
        assert ends.near.signalingState == "stable"
        assert aiortc_private.section_index(ends.transceiver, 99) == index < 99
        await negotiate(ends.far, ends.near)
        await aiortc_private.start_rest(ends.near)
        await ends.sees()
        await ends.close()

    run(test())


@pytest.mark.usefixtures("nothing")
def test_without_anything_media_flow_all_the_same() -> None:
    async def test() -> None:
        ends = Ends()
        aiortc_private.name_stream(ends.transceiver.sender, "desk")
        aiortc_private.set_section_index(ends.transceiver, None)
        aiortc_private.set_mid(ends.transceiver, None)
        aiortc_private.set_offered(ends.transceiver, "inactive")
        assert aiortc_private.section_index(ends.transceiver, 7) == 7
        await ends.connect()
        await ends.sees()
        assert ends.outlet.encoder is None  # the sender encodes
        assert ends.received.received.packets == 0
        assert ends.received.latency == 0
        aiortc_private.keep_agreed(ends.near)()
        assert not aiortc_private.can_take_offer_back()
        assert not aiortc_private.take_offer_back(ends.near, ())
        await aiortc_private.start_rest(ends.near)
        with pytest.raises(NegotiationFailedError, match="cannot leave direct paths out"):
            ice.relay_only(ends.near, "peer")
        await ends.close()

    run(test())


def test_a_track_without_a_section_does_not_spoil_an_answer() -> None:
    async def test() -> None:
        near, far = peer_connection(()), peer_connection(())
        near.addTransceiver("audio")
        far.addTransceiver("video")
        await near.setLocalDescription(await near.createOffer())
        await far.setRemoteDescription(near.localDescription)
        aiortc_private.set_unoffered(far)
        await far.setLocalDescription(await far.createAnswer())
        await near.setRemoteDescription(far.localDescription)
        await near.close()
        await far.close()

    run(test())


def test_streams_and_sections_are_named() -> None:
    async def test() -> None:
        pc = peer_connection(())
        one, two = pc.addTransceiver("audio"), pc.addTransceiver("audio")
        aiortc_private.name_stream(one.sender, "desk")
        await pc.setLocalDescription(await pc.createOffer())
        assert "a=msid:desk " in pc.localDescription.sdp
        indices = [aiortc_private.section_index(each, 99) for each in (one, two)]
        assert indices == [0, 1]
        aiortc_private.set_mid(two, "other")
        aiortc_private.set_section_index(two, 5)
        assert (two.mid, aiortc_private.section_index(two, 99)) == ("other", 5)
        aiortc_private.set_section_index(two, None)
        assert aiortc_private.section_index(two, 99) == 99
        await pc.close()

    run(test())


def test_a_transceiver_is_forgotten() -> None:
    async def test() -> None:
        near, far = peer_connection(()), peer_connection(())
        kept, over = near.addTransceiver("audio"), near.addTransceiver("video")
        await negotiate(near, far)
        offer = await far.createOffer()  # one in which another section takes its place
        text = offer.sdp.replace("a=mid:1\r", "a=mid:9\r").replace("BUNDLE 0 1", "BUNDLE 0 9")
        aiortc_private.retire(over)
        aiortc_private.discard(near, over)
        await near.setRemoteDescription(RTCSessionDescription(text, "offer"))
        await near.setLocalDescription(await near.createAnswer())
        assert near.getTransceivers()[0] is kept
        assert [one.mid for one in near.getTransceivers()] == ["0", "9"]
        assert near.localDescription.sdp.count("m=") == 2
        await near.setLocalDescription(await near.createOffer())  # without the old one
        for pc in (near, far):
            await pc.close()

    run(test())


def test_a_codec_is_put_first() -> None:
    async def test() -> None:
        near, far = peer_connection(()), peer_connection(())
        near.addTransceiver("video")
        await near.setLocalDescription(await near.createOffer())
        await far.setRemoteDescription(near.localDescription)
        (transceiver,) = far.getTransceivers()
        assert aiortc_private.first_codec(transceiver) == "vp8"
        for codec in (None, "h264", "unknown"):
            aiortc_private.put_codec_first(transceiver, codec)
        assert aiortc_private.first_codec(transceiver) == "h264"
        await near.close()
        await far.close()

    run(test())


def test_relays_need_a_server() -> None:
    async def test() -> None:
        pc = peer_connection(())
        pc.createDataChannel("chat")
        (transport,) = ice.transports(pc)
        assert aiortc_private.can_relay_only()
        assert not aiortc_private.use_relays_only(transport)
        assert aiortc_private.nominated_pair(transport) is None
        await pc.close()

    run(test())


def test_a_path_is_probed_and_its_packets_are_counted() -> None:
    async def test() -> None:
        near, far = peer_connection(()), peer_connection(())
        channel = near.createDataChannel("chat")
        await negotiate(near, far)
        await until(lambda: channel.readyState == "open", "channel")
        assert aiortc_private.can_probe()
        assert near.sctp is not None
        dtls = near.sctp.transport
        came = aiortc_private.packets_received(dtls)
        assert came > 0
        await asyncio.wait_for(aiortc_private.probe(dtls.transport), 20)
        channel.send("x")  # it is acknowledged
        await until(lambda: aiortc_private.packets_received(dtls) > came, "a packet")
        for transport in ice.transports(far):
            await transport.stop()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(aiortc_private.probe(dtls.transport), 0.2)
        await near.close()
        await far.close()

    run(test())


def test_messages_on_their_way_are_counted() -> None:
    async def test() -> None:
        near, far = peer_connection(()), peer_connection(())
        channel = near.createDataChannel("chat")
        assert aiortc_private.loop_of(channel) is asyncio.get_running_loop()
        assert aiortc_private.max_message_size(channel) >= 65536
        await negotiate(near, far)
        await until(lambda: channel.readyState == "open", "channel")
        assert aiortc_private.unacknowledged(channel) == 0
        for _ in range(50):
            channel.send(b"x" * 10_000)
        await until(lambda: aiortc_private.unacknowledged(channel) > 0, "messages on their way")
        await until(lambda: aiortc_private.unacknowledged(channel) == 0, "messages to arrive")
        await near.close()
        await far.close()

    run(test())


def test_tracks_that_queue_by_themselves() -> None:
    async def test() -> None:
        with PatternSource(160, 120, 15) as source:
            assert source.video is not None
            relay = MediaRelay().subscribe(source.video)
            assert aiortc_private.fills_a_queue(relay)
            assert not aiortc_private.fills_a_queue(source.video)
            relay.stop()
        remote = aiortc.rtcrtpreceiver.RemoteStreamTrack("audio")
        assert aiortc_private.fills_a_queue(remote)

    run(test())
