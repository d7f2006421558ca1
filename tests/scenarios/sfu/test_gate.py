"""Test clients that use the SFU through a gate, and one that tries to get around it."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from aiortc import AudioStreamTrack, RTCPeerConnection, RTCSessionDescription

from metered_sync import (
    MediaStream,
    MeteredPeer,
    ServerError,
    SfuAuthError,
    SfuClient,
    SfuMedia,
    mint_token,
)
from metered_sync.engine.webrtc.peer_connection import gather_on, wait_connected
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, read_number
from tests.conftest import wait_until
from tests.support.gates import gate_of, served_gate


@pytest.fixture(scope="module")
def gate_url(shared_cloud: LocalCloud) -> Iterator[str]:
    with served_gate(gate_of(shared_cloud)) as url:
        yield url


def token(cloud: LocalCloud, peer_id: str, **claims: Any) -> str:
    return mint_token(cloud.key_id, cloud.key_secret, peer_id=peer_id, **claims)


def test_publish_and_subscribe(shared_cloud: LocalCloud, gate_url: str) -> None:
    with (
        SfuClient(url=gate_url, token_provider=lambda: token(shared_cloud, "ann")) as ann,
        SfuClient(url=gate_url, token_provider=token(shared_cloud, "bob")) as bob,
        SfuClient(**shared_cloud.sfu_options()) as direct,
        PatternSource(160, 120, fps=15) as source,
    ):
        publication = ann.publish(source.video, name="camera")
        assert "~" not in (ann.session_id or "")
        (info,) = bob.tracks(ann.session_id)
        for client in bob, direct:
            track = client.subscribe(info)
            assert read_number(track.read(timeout=20)) >= 0
        for search in bob.sessions, lambda: bob.wait_for_track(name="camera", timeout=20):
            with pytest.raises(SfuAuthError, match="a gate does not list sessions"):
                search()
        found = bob.wait_for_track(session_id=ann.session_id, name="camera", timeout=20)
        assert found.track_id == info.track_id
        publication.close()


def test_a_lost_session_is_made_again(shared_cloud: LocalCloud, gate_url: str) -> None:
    with (
        SfuClient(url=gate_url, token_provider=lambda: token(shared_cloud, "ann")) as ann,
        PatternSource(160, 120, fps=15) as source,
    ):
        ann.publish(source.video)
        before = ann.session_id
        shared_cloud.faults.kill_sfu_session(str(before))
        wait_until(lambda: ann.session_id != before and ann.state == "connected", timeout=15)


def test_a_member_who_may_not_publish(shared_cloud: LocalCloud, gate_url: str) -> None:
    media = SfuMedia(gate=gate_url)
    claims = {"permissions": ["subscribe", "presence"]}
    with (
        MeteredPeer(**shared_cloud.token_options("ann"), media=media) as ann,
        MeteredPeer(**shared_cloud.token_options("eve", **claims), media=media) as eve,
        PatternSource(160, 120, fps=15) as source,
    ):
        ann.join("viewers")
        eve.join("viewers")
        ann.add_track(source, MediaStream(id="camera"))
        track = eve.wait_for_peer("ann", timeout=20).track("video", timeout=20)
        assert read_number(track.read(timeout=20)) >= 0
        with eve.events(ServerError) as errors:
            eve.add_track(source)
            assert errors.get(timeout=20).code == "sfu_refused"
        assert read_number(track.read(timeout=20)) >= 0  # which goes on
        assert not ann.wait_for_peer("eve", timeout=20).tracks


@pytest.mark.parametrize("may_publish", [True, False])
def test_packets_in_a_section_that_may_not_send_reach_nobody(
    shared_cloud: LocalCloud, gate_url: str, may_publish: bool
) -> None:
    permissions = ["subscribe", "publish"] if may_publish else ["subscribe"]
    bearer = token(shared_cloud, "eve", permissions=permissions)

    def post(offer: dict[str, str]) -> Any:
        return requests.post(
            gate_url + "/session/new",
            json={"sessionDescription": offer},
            headers={"Authorization": f"Bearer {bearer}"},
            timeout=10,
        ).json()

    async def send_anyway() -> int:
        """Send packets of sound by hand, whatever was negotiated; return how many are listed."""
        pc = RTCPeerConnection()
        gather_on.set("127.0.0.1")
        try:
            sender = pc.addTrack(AudioStreamTrack())
            await pc.setLocalDescription(await pc.createOffer())
            made = await asyncio.to_thread(post, {"type": "offer", "sdp": pc.localDescription.sdp})
            answer = made["sessionDescription"]
            await pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
            await wait_connected(pc, lambda stage: None)
            transport: Any = sender.transport
            extension = struct.pack("!HH", 0xBEDE, 1) + b"\x10" + b"0" + b"\0\0"  # the mid
            for number in range(50):
                header = struct.pack("!BBHII", 0x90, 96, number, 960 * number, 0x1234)
                await transport._send_rtp(header + extension + b"\xf8\xff\xfe")
                await asyncio.sleep(0.005)
            listed = await asyncio.to_thread(
                requests.get,
                f"{gate_url}/session/{made['sessionId']}/tracks",
                headers={"Authorization": f"Bearer {bearer}"},
                timeout=10,
            )
            return len(listed.json())
        finally:
            await pc.close()

    assert asyncio.run(send_anyway()) == (1 if may_publish else 0)
