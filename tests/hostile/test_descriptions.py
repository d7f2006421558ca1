"""Send descriptions that are made to be expensive: to a room's member, to the SFU, as the SFU."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import pytest

from metered_sync import Data, MeteredPeer
from metered_sync.engine.webrtc.sdp_repair import repair
from metered_sync.local import LocalCloud
from metered_sync.wire import sdp
from metered_sync.wire.limits import MAX_FRAME
from metered_sync.wire.sdp import MAX_DESCRIPTION
from metered_sync.wire.signals import SessionDescription, parse_signal
from tests.support.raw_client import raw
from tests.support.sfu_clients import serve
from tests.support.victim import MAX_STEP, cpu_of, loop_cpu

MOST = 0.2
"""Seconds of CPU time that reading or refusing a description may cost."""
HEAD = "v=0\na=ice-ufrag:abcd\na=ice-pwd:abcdefghijklmnopqrstuvwx\na=fingerprint:sha-256 AA\n"
VIDEO = "m=video 9 UDP/TLS/RTP/SAVPF 96\na=mid:%d\na=rtcp-mux\na=rtpmap:96 VP8/90000\n"
DATA = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\na=mid:%d\n"
CANDIDATE = "a=candidate:1 1 udp 1 ::1 1 typ host\n"
ALL_TYPES = " ".join(map(str, range(128)))
ALL_MAPS = "".join(f"a=rtpmap:{n} VP8/90000\n" for n in range(128))
H264 = "".join(
    f"a=rtpmap:{n} H264/90000\na=fmtp:{n} packetization-mode=1;{'a;' * 20}\n"
    for n in range(96, 128)
)


def feedback(count: int) -> str:
    return "".join(f"a=rtcp-fb:* {n}\n" for n in range(count))


def repeated(section: str, most: int, more: str = "") -> Callable[[int], str]:
    """Return a description of as many sections as fit, each with its number as the mid."""

    def make(size: int) -> str:
        parts = [HEAD + more]
        size -= len(parts[0])
        for number in range(most):
            part = section.replace("%d", str(number))
            size -= len(part)
            if size < 0:
                break
            parts.append(part)
        return "".join(parts)

    return make


ATTACKS: dict[str, Callable[[int], str]] = {
    "inherited lines": lambda size: (
        "v=0\n" + "a=extmap:1 u\n" * (size // 26) + "m=a 9 b 0\n" * (size // 22)
    ),
    "inherited lines, few": repeated(VIDEO, 128, "a=extmap:1 u\n" * 60),
    "sections": repeated("m=a 9 b 0\na=mid:%d\n", 10**6),
    "sections without mids": repeated("m=a 9 b 0\n", 10**6),
    "lines": lambda size: HEAD + VIDEO % 0 + "a=\n" * ((size - 300) // 3),
    "empty lines": lambda size: HEAD + "\n" * (size - len(HEAD)),
    "as many lines as may be": repeated("m=a 9 RTP/b 0\n" + "a=ssrc:%d\n" * 60, 256),
    "codecs": repeated(f"m=video 9 RTP/b {ALL_TYPES}\na=mid:%d\n{ALL_MAPS}", 10**6),
    "feedback": repeated(f"m=video 9 RTP/b {ALL_TYPES}\n{ALL_MAPS}{feedback(32)}", 10**6),
    "much feedback": repeated(f"m=video 9 RTP/b {ALL_TYPES}\n{ALL_MAPS}{feedback(300)}", 10**6),
    "formats": lambda size: HEAD + "m=video 9 RTP/b" + " 96" * ((size - 200) // 3),
    "one format": lambda size: (
        HEAD + VIDEO.replace("96\n", "96 " * 128 + "\n", 1) % 0 + "a=fmtp:96 " + ";" * (size - 800)
    ),
    "parameters": repeated(f"m=video 9 RTP/b {ALL_TYPES}\na=mid:%d\na=rtcp-mux\n{H264}", 10**6),
    "candidates of one": repeated(DATA, 128, CANDIDATE + DATA.replace("%d", "x") + CANDIDATE * 400),
    "candidates of each": repeated(DATA + CANDIDATE * 400, 128),
    "bundle": lambda size: HEAD + "a=group:BUNDLE" + " x" * (size // 2 - 100),
    "groups": repeated("m=a 9 b 0\n" + "a=ssrc-group:FID 1 2 3\n" * 400, 256),
    "group": lambda size: HEAD + VIDEO % 0 + "a=ssrc-group:FID" + " 1" * (size // 2 - 200),
    "layers": repeated("m=a 9 b 0\n" + "a=rid:a b\n" * 60, 256),
    "origin": lambda size: "v=0\no=" + "1 " * (size // 2 - 10),
    "digits": lambda size: HEAD + f"m=a {'9' * (size - 200)} b 0\n",
    "too long": lambda size: HEAD + VIDEO % 0 + "a=" + "b" * size,
}


def read(text: str) -> str:
    """Do what a member does with a description; return the outcome."""
    signal = parse_signal(
        {"type": "rtc-description", "description": {"type": "offer", "sdp": text}}
    )
    if not isinstance(signal, SessionDescription):
        return "ignored"
    try:
        repaired = repair(sdp.parse(signal.sdp))
    except sdp.SdpError:
        return "refused"
    return sdp.build(repaired.description)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_member_cannot_make_a_description_expensive(attack: str) -> None:
    """Nor much longer than it was, by what is copied into each section."""
    text = ATTACKS[attack](MAX_FRAME)
    assert len(text) > MAX_FRAME // 10
    assert cpu_of(lambda: read(text)) < MOST
    assert len(read(text)) < 4 * MAX_FRAME


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_body_of_the_sfu_is_not_expensive_either(attack: str) -> None:
    text = ATTACKS[attack](MAX_DESCRIPTION)

    def parse() -> None:
        with contextlib.suppress(sdp.SdpError):
            sdp.parse(text)

    assert cpu_of(parse) < MOST


def test_what_is_inherited_is_there_once() -> None:
    sections = sdp.parse(ATTACKS["inherited lines, few"](MAX_FRAME)).sections
    assert len(sections) == 128
    assert len(sections[0].extensions) == 60
    assert all(section.extensions is sections[0].extensions for section in sections)
    assert all(section.fingerprints is sections[0].fingerprints for section in sections)


def test_descriptions_of_a_member_do_not_hold_up_the_loop(cloud: LocalCloud) -> None:
    """Each as long as a frame may be; other members are served meanwhile."""
    with (
        MeteredPeer(**cloud.token_options("victim"), ice_servers=[]) as victim,
        raw(cloud, "mallory") as mallory,
    ):
        victim.join("room")
        mallory.ask(type="subscribe", requestId="1", channel="room")
        victim.wait_for_peer("mallory", timeout=20)
        inbox = victim.events(Data)

        def send(data: object) -> None:
            mallory.send(type="send", to="victim", data=data)

        before, begin = loop_cpu(), time.monotonic()
        for attack in ("inherited lines", "lines", "bundle"):
            text = ATTACKS[attack](45_000)  # (a line end has two characters in JSON)
            send({"type": "rtc-description", "description": {"type": "offer", "sdp": text}})
        send("over")
        assert inbox.get(timeout=20).data == "over"
        assert loop_cpu() - before < 3 * MAX_STEP
        assert time.monotonic() - begin < 10


@pytest.mark.parametrize("attack", ["inherited lines", "lines", "sections", "formats"])
def test_the_local_sfu_refuses_it_at_once(attack: str) -> None:
    async def main() -> None:
        async with serve() as server:
            text = ATTACKS[attack](200_000)
            body = {"sessionDescription": {"type": "offer", "sdp": text}}
            before = time.thread_time()  # of client and server together
            assert await server.refused("POST", "/session/new", body) == (400, "bad_description")
            assert time.thread_time() - before < MAX_STEP

    asyncio.run(main())
