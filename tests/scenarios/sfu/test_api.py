"""Make the SFU's seven calls with a WebRTC of one's own."""

from __future__ import annotations

import asyncio
import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from metered_sync import (
    MeteredTimeoutError,
    SfuApi,
    SfuAuthError,
    SfuClient,
    SfuConflictError,
    SfuError,
    SfuNotFoundError,
    TrackInfo,
)
from metered_sync.engine.webrtc.peer_connection import gather_on
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource, read_number
from tests.conftest import run_script
from tests.support.scripted_sfu import ScriptedSfu


def api(cloud: LocalCloud) -> SfuApi:
    return SfuApi(cloud.sfu_app_id, cloud.sfu_secret, cloud.http_url)


def described(description: dict[str, str]) -> RTCSessionDescription:
    return RTCSessionDescription(description["sdp"], description["type"])


async def publish_and_subscribe(api: SfuApi, pattern: PatternSource) -> int | None:
    """Use all seven calls with aiortc as it is; return the number in a received picture."""
    gather_on.set("127.0.0.1")
    call = asyncio.to_thread  # as the documentation says: the loop must go on
    pc = RTCPeerConnection(RTCConfiguration([]))
    try:
        # Connect, with an idle section.
        pc.addTransceiver("video", direction="recvonly")
        await pc.setLocalDescription(await pc.createOffer())
        made = await call(lambda: api.create_session(pc.localDescription, metadata="mine"))
        await pc.setRemoteDescription(described(made["sessionDescription"]))
        session = made["sessionId"]
        listed = {s["sessionId"]: s for s in await call(api.sessions)}
        assert listed[session]["metadata"] == "mine"
        # Publish; the description as a dict this time.
        track = pattern.video
        transceiver = pc.addTransceiver(track, direction="sendonly")
        await pc.setLocalDescription(await pc.createOffer())
        offer = {"type": "offer", "sdp": pc.localDescription.sdp}
        wanted = {"trackId": track.id, "mid": transceiver.mid, "customTrackName": "pattern"}
        answer = await call(api.publish_tracks, session, [wanted], offer)
        await pc.setRemoteDescription(described(answer["sessionDescription"]))
        (published,) = await call(api.tracks, session)
        assert published["customTrackName"] == "pattern"
        assert published["trackKind"] == "video"
        # Subscribe to one's own track.
        ref = {"remoteSessionId": session, "remoteTrackId": published["trackId"]}
        asked = await call(api.subscribe_tracks, session, [ref])
        assert asked["immediateRenegotiationRequired"] is True
        await pc.setRemoteDescription(described(asked["sessionDescription"]))
        await pc.setLocalDescription(await pc.createAnswer())
        await call(api.renegotiate, session, pc.localDescription)
        received = pc.getTransceivers()[-1].receiver.track
        frame = await asyncio.wait_for(received.recv(), 20)
        number = read_number(frame.to_ndarray(format="bgr24"))
        # Close.
        transceiver.sender.replaceTrack(None)
        transceiver.direction = "inactive"
        await pc.setLocalDescription(await pc.createOffer())
        closed = await call(api.close_tracks, session, [track.id], pc.localDescription)
        assert closed["success"] is True
        await pc.setRemoteDescription(described(closed["sessionDescription"]))
        assert await call(api.tracks, session) == []
        return number
    finally:
        await pc.close()


def test_the_seven_calls_with_a_webrtc_of_ones_own(shared_cloud: LocalCloud) -> None:
    with PatternSource(160, 120, 15) as pattern:
        number = asyncio.run(publish_and_subscribe(api(shared_cloud), pattern))
        assert number is not None


def test_what_a_client_publishes_is_seen(shared_cloud: LocalCloud) -> None:
    calls = api(shared_cloud)
    with SfuClient(**shared_cloud.sfu_options()) as client, ToneSource(frequency=440) as tone:
        published = client.publish(tone.audio, name="tone")
        (listed,) = calls.tracks(published.session_id)
        assert listed["trackId"] == published.track_id
        assert listed["mid"] == published.mid
        info = TrackInfo(published.session_id, published.track_id, "tone", "audio")
        asked = calls.subscribe_tracks(str(client.session_id), [info])
        assert asked["sessionDescription"]["type"] == "offer"
        with pytest.raises(SfuConflictError, match="409"):
            calls.subscribe_tracks(str(client.session_id), [info])  # the offer waits


def test_errors_say_what_and_where(shared_cloud: LocalCloud) -> None:
    good = api(shared_cloud)
    for calls, kind in (
        (SfuApi(shared_cloud.sfu_app_id, "wrong", shared_cloud.http_url), SfuAuthError),
        (SfuApi("wrong", shared_cloud.sfu_secret, shared_cloud.http_url), SfuAuthError),
    ):
        with pytest.raises(kind) as caught:
            calls.sessions()
        assert caught.value.endpoint.startswith("GET /api/sfu/")
        assert caught.value.status == 401
        assert "check the app id and the secret" in str(caught.value)
        assert shared_cloud.sfu_secret not in f"{caught.value!r} {vars(caught.value)} {calls!r}"
    with pytest.raises(SfuNotFoundError) as caught:
        good.tracks("a/b?c")
    assert caught.value.endpoint.endswith("/session/a%2Fb%3Fc/tracks")
    with pytest.raises(SfuError) as bad:
        good.create_session({"type": "offer", "sdp": "nonsense"})
    assert bad.value.status == 400
    assert bad.value.body["error"]


def test_arguments_are_checked_before_anything_is_sent() -> None:
    calls = SfuApi("app", "secret", "http://127.0.0.1:9")
    offer = {"type": "offer", "sdp": "v=0"}
    answer = SimpleNamespace(type="answer", sdp="v=0")
    for text in ("v=0\r\n", b"v=0"):
        for call in (
            lambda text=text: calls.create_session(text),
            lambda text=text: calls.publish_tracks("s", [{"trackId": "t", "mid": "0"}], text),
            lambda text=text: calls.renegotiate("s", text),
            lambda text=text: calls.close_tracks("s", ["t"], text),
        ):
            with pytest.raises(TypeError, match=r"a description .* not its text alone"):
                call()
    bad: list[Any] = [
        lambda: calls.create_session(answer),
        lambda: calls.create_session({"type": "offer"}),
        lambda: calls.create_session(None),
        lambda: calls.create_session(offer, metadata=7),  # type: ignore[arg-type]
        lambda: calls.publish_tracks("s", [{"trackId": "t"}], offer),
        lambda: calls.publish_tracks("", [{"trackId": "t", "mid": "0"}], offer),
        lambda: calls.subscribe_tracks("s", [{"remoteSessionId": "t"}]),
        lambda: calls.close_tracks("s", [7], offer),  # type: ignore[list-item]
        lambda: calls.renegotiate("s", {"type": "rollback", "sdp": "v=0"}),
        lambda: calls.tracks(""),
        lambda: calls.sessions(timeout=-1),
    ]
    for call in bad:
        with pytest.raises(ValueError):
            call()
    with pytest.raises(ValueError, match="METERED_SFU_APP_ID"):
        SfuApi()
    with pytest.raises(ValueError, match="https"):
        SfuApi("app", "secret", "http://example.com")


def test_unknown_fields_go_through() -> None:
    with ScriptedSfu() as sfu, SfuApi("app", "secret", sfu.url) as calls:
        sfu.answers["track/subscribe"] = (200, {"sessionDescription": None, "new": 1})
        track = {"remoteSessionId": "s", "remoteTrackId": "t", "layer": "high"}
        assert calls.subscribe_tracks("s", [track])["new"] == 1
        assert sfu.seen[-1].body == {"tracks": [track]}
        assert sfu.seen[-1].authorization == "Bearer secret"
        sfu.answers["renegotiate"] = (200, None)
        assert calls.renegotiate("s", {"type": "answer", "sdp": "v=0"}) is None


@pytest.mark.parametrize("answer", [b"<html>", b"", b"[1", b'"text"', b"7"])
def test_answers_that_are_no_json_objects(answer: bytes) -> None:
    with ScriptedSfu() as sfu:
        calls = SfuApi("app", "secret", sfu.url)
        for name in ("session/new", "sessions", "track/publish"):
            sfu.answers[name] = (200, answer)
        offer = {"type": "offer", "sdp": "v=0"}
        for call in (
            lambda: calls.create_session(offer),
            calls.sessions,
            lambda: calls.publish_tracks("s", [{"trackId": "t", "mid": "0"}], offer),
        ):
            with pytest.raises(SfuError, match="not what the service sends") as caught:
                call()
            assert caught.value.status == 200


def test_a_late_answer_is_not_waited_for() -> None:
    with ScriptedSfu() as sfu:
        sfu.hold.add("sessions")
        with pytest.raises(MeteredTimeoutError, match=r"0\.3 s"):
            SfuApi("app", "secret", sfu.url).sessions(timeout=0.3)


def test_it_needs_no_webrtc(served_cloud: dict[str, str]) -> None:
    done = run_script(
        """
import sys
for name in ("aiortc", "aioice", "av", "numpy"):
    sys.modules[name] = None
from metered_sync import SfuApi
api = SfuApi()
print(api.sessions() is not None)
""",
        METERED_SFU_URL=served_cloud["http_url"],
        METERED_SFU_APP_ID=served_cloud["sfu_app_id"],
        METERED_SFU_SECRET=served_cloud["sfu_secret"],
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_description_may_be_any_object(shared_cloud: LocalCloud) -> None:
    @dataclasses.dataclass
    class Description:
        type: str
        sdp: str

    with pytest.raises(SfuError) as caught:  # it was understood, and refused
        api(shared_cloud).create_session(Description("offer", "nonsense"))
    assert caught.value.status == 400
