"""Send a room's member tracks in codecs that it cannot decode: it says so at once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

from metered_sync import (
    MeteredPeer,
    MeteredTimeoutError,
    NegotiationError,
    NegotiationFailedError,
    PeerJoined,
    RemotePeer,
)
from metered_sync.engine.webrtc.sdp_repair import misfit
from metered_sync.local import LocalCloud
from metered_sync.wire import sdp
from tests.support.raw_client import Raw, raw

HEAD = (
    "v=0\r\no=- 1 {version} IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {bundle}\r\n"
    "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=setup:actpass\r\n"
    f"a=fingerprint:sha-256 {':'.join(['AA'] * 32)}\r\n"
)
H264 = "H264/90000"


def section(mid: int, kind: str, *codecs: str, direction: str = "sendonly") -> str:
    """Return a section; a codec is a name with its rate, and perhaps parameters after a space."""
    numbers = range(96, 96 + len(codecs))
    lines = [f"m={kind} 9 UDP/TLS/RTP/SAVPF {' '.join(map(str, numbers))}"]
    lines += [f"a=mid:{mid}", "a=rtcp-mux", f"a={direction}", f"a=msid:camera {kind}{mid}"]
    for number, codec in zip(numbers, codecs, strict=True):
        name, _, parameters = codec.partition(" ")
        lines.append(f"a=rtpmap:{number} {name}")
        if parameters:
            lines.append(f"a=fmtp:{number} {parameters}")
    return "".join(f"{line}\r\n" for line in lines)


def offer(*sections: str, version: int = 1) -> str:
    head = HEAD.format(version=version, bundle=" ".join(map(str, range(len(sections)))))
    return head + "".join(sections)


UNFIT: dict[str, tuple[str, tuple[str, ...], str]] = {
    "mode 0": ("video", (f"{H264} packetization-mode=0;profile-level-id=42e01f",), "mode 0"),
    "vp9": ("video", ("VP9/90000 profile-id=0", "rtx/90000 apt=96"), "VP9"),
    "h265": ("video", ("H265/90000", "AV1/90000"), "H265, AV1"),
    "isac": ("audio", ("ISAC/16000", "telephone-event/8000"), "ISAC"),
    "nothing": ("audio", ("telephone-event/8000",), "no codec"),
}


@contextlib.contextmanager
def meeting(cloud: LocalCloud, *ids: str) -> Iterator[tuple[MeteredPeer, list[Raw]]]:
    """Have a peer of ours, and members that are scripted, meet in a room."""
    with contextlib.ExitStack() as stack:
        victim = stack.enter_context(
            MeteredPeer(**cloud.token_options("victim"), ice_servers=[], timeout=10)
        )
        members = [stack.enter_context(raw(cloud, id_)) for id_ in ids]
        with victim.events(PeerJoined) as joined:
            victim.join("codecs")
            for member in members:
                member.ask(type="subscribe", requestId="1", channel="codecs")
            for _ in members:
                joined.get(timeout=20)
        yield victim, members


def say(member: Raw, text: str) -> None:
    description = {"type": "offer", "sdp": text}
    data = {"type": "rtc-description", "description": description}
    member.send(type="send", to="victim", data=data)


def waits_in_vain(remote: RemotePeer, kind: str, **options: Any) -> str:
    begin = time.monotonic()
    with pytest.raises(NegotiationFailedError) as caught:
        remote.track(kind, timeout=30, **options)
    assert time.monotonic() - begin < 10
    return str(caught.value)


def test_a_codec_that_does_not_fit_is_told_at_once(cloud: LocalCloud) -> None:
    """With an event, and by the call that waits; once for each track, however often it comes."""
    with meeting(cloud, *UNFIT) as (victim, members):
        for member, (name, (kind, codecs, word)) in zip(members, UNFIT.items(), strict=True):
            remote = next(one for one in victim.remote_peers if one.id == name)
            with remote.events(NegotiationError) as problems:
                say(member, offer(section(0, kind, *codecs)))
                for text in (str(problems.get(timeout=20).err), waits_in_vain(remote, kind)):
                    assert word in text
                    assert ("VP8" if kind == "video" else "Opus") in text
                assert word in waits_in_vain(remote, kind, stream_id="camera")
                with pytest.raises(MeteredTimeoutError, match="offered in"):
                    remote.track(kind, where=lambda _: True, timeout=0)
                other = "audio" if kind == "video" else "video"
                with pytest.raises(MeteredTimeoutError, match="offered in"):
                    remote.track(other, timeout=0)
                for version in (2, 3):
                    say(member, offer(section(0, kind, *codecs), version=version))
                say(member, offer(section(0, kind, "AMR/8000"), version=4))
                assert "AMR" in str(problems.get(timeout=20).err)
                assert remote.state == "idle"


def test_what_fits_beside_it_is_received(cloud: LocalCloud) -> None:
    with meeting(cloud, "mallory") as (victim, [mallory]):
        remote = victim.remote_peers[0]
        vp8, vp9 = section(0, "video", "VP8/90000"), section(1, "video", "VP9/90000")
        with remote.events(NegotiationError) as problems:
            say(mallory, offer(vp8, vp9))
            assert problems.get(timeout=20).err.stage == "offer"
        assert remote.track("video", timeout=20).kind == "video"
        assert remote.track(timeout=20).kind == "video"


def test_what_is_said_of_codecs_is_short_and_clean() -> None:
    many = tuple(f"X{n}/90000" for n in range(20))
    (one,) = sdp.parse(offer(section(0, "video", *many))).sections
    text = misfit(one)
    assert text is not None
    assert "X5 and 14 more" in text
    evil = ("<b>\u00a0" + "A" * 100 + "/90000", f"{H264} packetization-mode=<\u00a0>;a=b")
    (one,) = sdp.parse(offer(section(0, "video", *evil))).sections
    text = misfit(one)
    assert text is not None
    assert text.isprintable()
    assert len(text) < 200
    (one,) = sdp.parse(offer(section(0, "video", "VP9/90000", "VP8/90000"))).sections
    assert misfit(one) is None
    assert misfit(one, first=True) is not None
