"""Let a member of a room do everything that it should not, and see what it costs the others."""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pylibsrtp
import pytest

from metered_sync import Data, MeteredPeer
from metered_sync.engine.webrtc.aiortc_private.sctp import MAX_PARTS
from tests.support.mallory import Mallory, Stage, stage, until
from tests.support.raw_sctp import SCTP, send_chunk

MID = {"sdpMid": "0", "sdpMLineIndex": 0}


@pytest.fixture(scope="module")
def scene() -> Iterator[Stage]:
    with stage() as scene:
        yield scene


def over(scene: Stage, mallory: Mallory) -> None:
    """Wait until the victim has taken all that has been sent."""
    with scene.victim.events(Data) as inbox:
        mallory.run(mallory.tell("over"))
        while inbox.get(timeout=20).data != "over":
            pass


# --- signals --------------------------------------------------------------------------

ODD: list[Any] = [None, 7, 1e308, "", "x" * 9000, [], [[[]]] * 500, {}, {"a": {}}, True, -1]


def odd_signals() -> list[Any]:
    found: list[Any] = []
    for odd in ODD:
        found += [
            {"type": odd},
            {"type": "rtc-description"},
            {"type": "rtc-description", "description": odd},
            {"type": "rtc-description", "description": {"type": odd, "sdp": "v=0"}},
            {"type": "rtc-description", "description": {"type": "offer", "sdp": odd}},
            {"type": "rtc-description", "description": {"type": "answer", "sdp": odd}},
            {"type": "rtc-ice", "candidate": odd},
            {"type": "rtc-ice", "candidate": {"candidate": odd, **MID}},
            {"type": "rtc-ice", "candidate": {"candidate": "candidate:1", "sdpMid": odd}},
            {"type": "rtc-ice", "candidate": {"candidate": "x", "sdpMLineIndex": odd}},
            {"type": "rtc-track-metadata", "trackId": odd, "metadata": odd},
            {"type": "rtc-track-metadata", "trackId": "t", "streamId": odd, "metadata": {}},
        ]
    return found


def test_signals_of_every_wrong_type(scene: Stage) -> None:
    async def storm() -> None:
        for signal in odd_signals():
            await mallory.tell(signal)

    with scene.attack() as (mallory, _):
        mallory.run(storm())
        over(scene, mallory)


CANDIDATES: dict[str, Callable[[int], Any]] = {
    "many": lambda n: f"candidate:{n} 1 udp {n + 1} 127.0.0.1 {n + 1} typ host",
    "of names": lambda n: f"candidate:{n} 1 udp {n + 1} {n}.local {n + 1} typ host",
    "of foreign names": lambda n: f"candidate:{n} 1 udp 1 no{n}.invalid 9 typ host",
    "bad": lambda n: f"candidate:{n} {'x' * 50}",
    "huge": lambda n: f"candidate:{n} 1 udp 1 ::1 {'9' * 50_000} typ host",
    "of a later description": lambda n: f"candidate:{n} 1 udp 1 ::1 9 typ host ufrag later{n}",
}


def some(kinds: Iterable[str], *usual: str) -> pytest.MarkDecorator:
    """Return the kinds of a test: these in each run, the others in the long one."""
    marks = {kind: () if kind in usual else (pytest.mark.slow,) for kind in kinds}
    return pytest.mark.parametrize("kind", [pytest.param(k, marks=m) for k, m in marks.items()])


@some(CANDIDATES, "many", "huge")
def test_candidates_without_end(scene: Stage, kind: str) -> None:
    async def storm() -> None:
        mallory.pc.createDataChannel("x")
        await mallory.pc.setLocalDescription(await mallory.pc.createOffer())
        await mallory.offer(mallory.pc.localDescription.sdp)
        for number in range(60 if kind == "huge" else 1500):
            candidate = {"candidate": CANDIDATES[kind](number), **MID}
            await mallory.tell({"type": "rtc-ice", "candidate": candidate})

    with scene.attack(lines=2) as (mallory, _):
        mallory.run(storm())
        over(scene, mallory)


def test_metadata_of_tracks_that_never_come(scene: Stage) -> None:
    """Of 32 KB that become lists of a megabyte."""

    async def storm() -> None:
        for number in range(60):
            about = {"type": "rtc-track-metadata", "trackId": f"t{number}"}
            await mallory.tell({**about, "metadata": {"x": [[]] * 10_000}})

    with scene.attack() as (mallory, _):
        mallory.run(storm())
        over(scene, mallory)


def test_offers_of_ever_new_connections(scene: Stage) -> None:
    """Each is answered from a new connection, as one of a page that was loaded again is."""

    async def storm() -> None:
        mallory.pc.createDataChannel("x")
        await mallory.pc.setLocalDescription(await mallory.pc.createOffer())
        text = mallory.pc.localDescription.sdp
        fragment = text.partition("a=ice-ufrag:")[2].split()[0]
        for number in range(40):
            await mallory.offer(text.replace(fragment, f"{fragment}{number}"))
            await asyncio.sleep(0.01)

    with scene.attack() as (mallory, _):
        mallory.run(storm())
        over(scene, mallory)


def test_messages_of_one_who_is_not_there(scene: Stage) -> None:
    """They wait for the presence that may announce their sender, and not for long."""

    async def storm() -> None:
        await mallory.frame(type="unsubscribe", channel="room", requestId="2")
        for _ in range(60):
            await mallory.tell([[]] * 8_000)

    with scene.attack() as (mallory, _):
        mallory.run(storm())
        until(lambda: len(scene.victim._link.roster._early) > 10, "messages wait")  # type: ignore[union-attr]


def test_coming_and_going(scene: Stage) -> None:
    async def storm() -> None:
        for number in range(60):
            await mallory.frame(type="unsubscribe", channel="room", requestId=f"a{number}")
            await mallory.frame(type="subscribe", channel="room", requestId=f"b{number}")

    with scene.attack() as (mallory, _), scene.victim.events(maxsize=10) as events:
        mallory.run(storm())
        over(scene, mallory)
        assert len(events) <= 100


# --- packets --------------------------------------------------------------------------


def rtp(payload_type: int, number: int, payload: bytes, *, ssrc: int, extension: int = 0) -> bytes:
    head = struct.pack(
        "!BBHII", 0x80 | extension, payload_type, number & 0xFFFF, number * 3000 & 0xFFFFFFFF, ssrc
    )
    return head + payload


def rtcp(kind: int, count: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack("!BBH", 0x80 | count, kind, len(body) // 4) + body


def garbage(draw: random.Random) -> bytes:
    return draw.randbytes(draw.randrange(1, 1200))


def packets(kind: str, mallory: Mallory) -> list[bytes]:
    """Return packets of one kind, in the clear."""
    draw = random.Random(kind)
    sender = mallory.pc.getTransceivers()[0].sender
    ssrc: int = sender._ssrc
    if kind == "rtp":
        return [
            rtp(draw.choice([96, 97, 98, 111, 0, 127]), n, garbage(draw), ssrc=ssrc)
            for n in range(1500)
        ]
    if kind == "extensions":
        return [
            rtp(97, n, struct.pack("!HH", 0xBEDE, draw.randrange(300)) + garbage(draw), ssrc=ssrc,
                extension=0x10)
            for n in range(1500)
        ]  # fmt: skip
    if kind == "gaps":
        return [rtp(97, n * 997, b"\x10" + garbage(draw), ssrc=ssrc) for n in range(1500)]
    if kind == "sources":
        return [rtp(97, n, b"\x10\0", ssrc=draw.getrandbits(32)) for n in range(1500)]
    if kind == "reports":
        sr = struct.pack("!IQIII", ssrc, 0, 0, 0, 0)
        return [rtcp(200, 0, sr)] * 1500
    if kind == "goodbyes":
        return [rtcp(203, 1, struct.pack("!I", ssrc))] * 200
    if kind == "lost packets":
        nack = struct.pack("!II", ssrc, ssrc) + b"\xff\xff\xff\xff" * 300
        return [rtcp(205, 1, nack)] * 1000
    if kind == "key frames":
        return [rtcp(206, 1, struct.pack("!II", ssrc, ssrc))] * 1500
    if kind == "estimates":
        remb = struct.pack("!II4sBBHI", ssrc, 0, b"REMB", 255, 0xFF, 0xFFFF, ssrc)
        return [rtcp(206, 15, remb)] * 1500
    return [rtcp(draw.randrange(192, 224), draw.randrange(32), garbage(draw)) for _ in range(1500)]


PACKETS = (
    "rtp", "extensions", "gaps", "sources", "reports", "goodbyes", "lost packets", "key frames",
    "estimates", "rtcp",
)  # fmt: skip


@some(PACKETS, "rtp", "rtcp")
def test_packets(scene: Stage, kind: str) -> None:
    """Encrypted, as a member's are; and the same in the clear, which nobody takes."""

    async def storm() -> None:
        await mallory.connect_media("video", "audio")
        for number, packet in enumerate(packets(kind, mallory)):
            await encrypted(mallory, packet)
            if number % 5 == 0:
                await mallory.dtls.transport._send(packet)
            if number % 50 == 0:
                await asyncio.sleep(0.002)

    async def more() -> None:
        for number in range(300):
            ssrc: int = mallory.pc.getTransceivers()[0].sender._ssrc
            await encrypted(mallory, rtp(97, number * 3, b"\x10\0" + bytes(number), ssrc=ssrc))

    with scene.attack() as (mallory, remote):
        mallory.run(storm())
        with remote.track("video", timeout=20).frames():  # now it is decoded, too
            mallory.run(more())
            over(scene, mallory)


async def encrypted(mallory: Mallory, packet: bytes) -> None:
    """Send a packet as SRTP or SRTCP, where libsrtp takes it."""
    with contextlib.suppress(pylibsrtp.Error):
        await mallory.dtls._send_rtp(packet)


# --- data channels --------------------------------------------------------------------


@some(SCTP, "a message without an end", "in small pieces", "streams")
def test_parts_of_messages(scene: Stage, kind: str) -> None:
    """Hand-made SCTP: parts that wait for others, which never come."""

    async def storm() -> None:
        await mallory.connect_media()
        sctp: Any = mallory.pc.sctp
        first = sctp._local_tsn
        for number in range(1200):
            try:
                await send_chunk(sctp, SCTP[kind](number, first))
            except ConnectionError:  # the victim has had enough
                return
            if number % 20 == 0:
                await asyncio.sleep(0.002)

    with scene.attack() as (mallory, _):
        mallory.run(storm())
        over(scene, mallory)
        parts = kept(scene, mallory)
        assert len(parts) <= 2 * MAX_PARTS
        assert sum(parts) <= 17 << 16
        scene.check_alive()


def kept(scene: Stage, mallory: Mallory) -> list[int]:
    """Return the sizes of the parts of messages that the victim keeps."""
    link: Any = scene.victim._link
    sctp = link.roster.members[mallory.id].media.pc.sctp
    streams = () if sctp is None else tuple(sctp._inbound_streams.values())  # (they may change)
    return [len(chunk.user_data) for stream in streams for chunk in tuple(stream.reassembly)]


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_messages_of_any_size(scene: Stage, size: int) -> None:
    """What is larger than the victim has said it takes does not arrive; the rest does."""

    async def storm() -> None:
        await mallory.connect_media()
        mallory.pc.sctp._remote_max_message_size = 0  # type: ignore[union-attr]
        for _ in range(100 if size == 1 else 4):
            mallory.channel.send(bytes(size))
        mallory.channel.send("end")

    with scene.attack() as (mallory, remote):
        mallory.run(storm())
        until(lambda: remote.channels, "the channel is there")
        (channel,) = remote.channels
        while (message := channel.get(timeout=20)) != "end":
            assert len(message) == 1
        assert channel.dropped == (0 if size == 1 else 4)


# --- joining --------------------------------------------------------------------------


def test_who_comes_later_is_served(scene: Stage) -> None:
    """After all of that: a new member connects, and its messages arrive."""
    options = scene.cloud.token_options("late")
    with MeteredPeer(**options, ice_servers=[]) as late:
        late.join("room")
        channel = late.wait_for_peer("victim", timeout=20).create_data_channel("x", timeout=10)
        channel.send("hello")
        remote = scene.victim.wait_for_peer("late", timeout=20)
        until(lambda: remote.channels, "the channel is there")
        assert remote.channels[0].get(timeout=20) == "hello"
