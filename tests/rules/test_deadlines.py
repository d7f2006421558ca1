"""Rule 1: every blocking call takes a deadline. (The bridge's own: tests/bridge/test_loop.py.)"""

from __future__ import annotations

import functools
import inspect
import math
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from metered_sync import (
    AckTimeoutError,
    AudioSource,
    ControlPlane,
    DisconnectedError,
    Event,
    MediaStream,
    MeteredPeer,
    MeteredTimeoutError,
    Recorder,
    SfuApi,
    SfuClient,
    SignallingClient,
    TurnApi,
    VideoSource,
)
from metered_sync.bridge import deadline as deadline_module
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource
from tests.conftest import wait_until
from tests.support.deadlines import expired
from tests.support.scripted_service import WELCOME, Scripted, ScriptedServer, mute


def test_connect_gives_up_on_a_server_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"ws://127.0.0.1:{server.getsockname()[1]}"
        client = SignallingClient(api_key="pk_live_x", url=url)
        expiry = expired(
            lambda timeout: client.connect(timeout=timeout),
            lambda error: "it came to: opening ws:" in str(error),
            first=0.2,
        )
        assert re.search(
            r"connect: not finished within [0-9.]+ s \(it came to: opening ws:", str(expiry)
        )
        assert client.state == "idle"
        # The connection was given up, not left behind.
        connection, _ = server.accept()
        connection.settimeout(5)
        with connection:
            while connection.recv(4096):
                pass
        client.close()


def test_a_provider_that_is_slow_is_named() -> None:
    goes_on = threading.Event()
    client = SignallingClient(token_provider=lambda: str(goes_on.wait(60)), url="ws://127.0.0.1:9")
    peer = MeteredPeer(token_provider=lambda: str(goes_on.wait(60)), url="ws://127.0.0.1:9")
    words = "it came to: waiting for the token_provider"
    for call in (client.connect, functools.partial(peer.join, "a room")):
        expiry = expired(
            lambda timeout, call=call: call(timeout=timeout),
            lambda error: words in str(error),
            first=0.1,
        )
        assert words in str(expiry)
    goes_on.set()


def test_the_objects_default_and_the_calls_own(shared_cloud: LocalCloud) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"ws://127.0.0.1:{server.getsockname()[1]}"
        for options, timeout in (({"timeout": 0.2}, None), ({"timeout": 60}, 0.2)):
            client = SignallingClient(api_key="pk_live_x", url=url, **options)
            started = time.monotonic()
            with pytest.raises(TimeoutError):
                client.connect(timeout=timeout)
            assert time.monotonic() - started < 9
            client.close()


def test_a_publish_that_is_not_acknowledged_says_whether_it_left(cloud: LocalCloud) -> None:
    with SignallingClient(**cloud.client_options()) as client:
        server: Any = cloud._servers
        held = threading.Event()
        server._engine.post(held.wait, 60)  # the server's loop stands still
        expiry = expired(
            lambda timeout: client.publish("x", 1, timeout=timeout), lambda error: error.sent
        )
        assert isinstance(expiry, AckTimeoutError)
        assert "it was sent" in str(expiry)
        assert expiry.sent
        held.set()
        client.publish("x", 2)
        link: Any = client._link
        assert not link.outbox._pending
        cloud.faults.drop_connections()
        cloud.close()
        wait_until(lambda: client.state == "reconnecting")
        with pytest.raises(AckTimeoutError, match="never left") as caught:
            client.publish("x", 1, timeout=0.3)
        assert not caught.value.sent
        assert not link.outbox._queue


def test_infinity_waits_until_there_is_something(shared_cloud: LocalCloud) -> None:
    options = shared_cloud.client_options()
    with (
        SignallingClient(**options, timeout=math.inf) as alice,
        SignallingClient(**options) as bob,
    ):
        inbox = alice.subscribe("inf", timeout=math.inf)
        threading.Timer(0.3, lambda: bob.publish("inf", 1)).start()
        assert inbox.get(timeout=math.inf).data == 1


def test_one_deadline_covers_all_steps(cloud: LocalCloud) -> None:
    """A subscribe that is interrupted by an outage starts over, but not its deadline."""
    with SignallingClient(**cloud.client_options()) as client:
        server: Any = cloud._servers
        held = threading.Event()
        server._engine.post(held.wait, 20)
        started = time.monotonic()
        timer = threading.Timer(0.4, client._link._connection.abort)  # type: ignore[union-attr]
        timer.start()
        with pytest.raises((MeteredTimeoutError, DisconnectedError)):
            client.subscribe("x", timeout=0.8)
        assert time.monotonic() - started < 9
        held.set()
        timer.join()


def test_a_waiter_is_woken_by_the_loss_not_by_its_own_deadline(cloud: LocalCloud) -> None:
    with SignallingClient(**cloud.client_options()) as client:
        server: Any = cloud._servers
        held = threading.Event()
        server._engine.post(held.wait, 20)
        errors: list[BaseException] = []

        def publish() -> None:
            try:
                client.publish("x", 1, timeout=60)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=publish)
        thread.start()
        link: Any = client._link
        wait_until(lambda: any(r.sent for r in tuple(link.outbox._pending.values())))
        client._engine.post(link._connection.abort)  # type: ignore[union-attr]
        thread.join(20)
        assert not thread.is_alive()
        held.set()
        (error,) = errors
        assert isinstance(error, DisconnectedError)
        assert "may or may not" in str(error)


def test_waits_in_slices_work_too(
    shared_cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on Windows, where Ctrl-C is seen between two waits only.
    monkeypatch.setattr(deadline_module, "WAIT_SLICE", 0.01)
    options = shared_cloud.client_options()
    with SignallingClient(**options) as alice, SignallingClient(**options) as bob:
        inbox = alice.subscribe("slices")
        threading.Timer(0.1, lambda: bob.publish("slices", 1)).start()
        assert inbox.get(timeout=20).data == 1
        with pytest.raises(MeteredTimeoutError):
            inbox.get(timeout=0.05)


# --- every timeout= -------------------------------------------------------------------

ARGUMENTS: dict[str, Any] = {
    "channel": "deadlines", "data": 1, "peer_id": "somebody", "event_type": Event, "label": "x",
    "session_id": "s", "track_id": "t", "offer": {"type": "offer", "sdp": "v=0"},
    "description": {"type": "answer", "sdp": "v=0"},
    "tracks": [dict.fromkeys(("trackId", "mid", "remoteSessionId", "remoteTrackId"), "0")],
    "seconds": 0, "fraction": 0, "propId": 3, "code": 1000, "metadata": None, "sound": b"",
    "picture": np.zeros((120, 160, 3), np.uint8), "image": np.zeros((120, 160, 3), np.uint8),
}  # fmt: skip
"""Something for each argument that has no default."""


@pytest.fixture(scope="module")
def objects(shared_cloud: LocalCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One of each object that has methods which wait."""
    options: dict[str, Any] = {**shared_cloud.client_options(), "ice_servers": []}
    with (
        SignallingClient(**shared_cloud.client_options()) as client,
        SfuClient(**shared_cloud.sfu_options()) as sfu,
        MeteredPeer(**options) as peer,
        MeteredPeer(**options) as other,
        PatternSource(160, 120) as pattern,
        AudioSource() as sound,
        VideoSource(160, 120) as pictures,
    ):
        inbox = client.subscribe("deadlines")
        peer.join("deadlines/room")
        other.join("deadlines/room")
        other.add_track(pattern)
        remote = peer.wait_for_peer(timeout=20)
        track = remote.track("video", timeout=20)
        publication = sfu.publish(pattern)
        folder = tmp_path_factory.mktemp("recordings")
        yield [
            client, sfu, peer, remote, track, inbox, publication, pattern, sound, pictures,
            remote.create_data_channel("deadlines"),
            client.events(), client.publish_nowait("deadlines", 1),
            track.frames(), track.capture(), track.pcm if track.kind == "audio" else track,
            Recorder(folder / "a.mp4", track),
            shared_cloud, shared_cloud.faults, shared_cloud.control_plane(),
            TurnApi(**shared_cloud.turn_options()),
            SfuApi(shared_cloud.sfu_app_id, shared_cloud.sfu_secret, shared_cloud.http_url),
        ]  # fmt: skip


def waiting_methods(one: Any) -> Iterator[tuple[str, Any, inspect.Signature]]:
    for name in dir(type(one)):
        method = getattr(type(one), name)
        if name.startswith("_") or name == "joined" or not inspect.isroutine(method):
            continue
        signature = inspect.signature(method)
        if "timeout" in signature.parameters:
            yield name, getattr(one, name), signature


@pytest.mark.parametrize(
    ("timeout", "error"),
    [(-1, ValueError), (math.nan, ValueError), (True, ValueError), ("1", TypeError)],
)
def test_a_timeout_that_cannot_be_does_nothing(
    objects: list[Any], timeout: Any, error: type[Exception]
) -> None:
    tried = set()
    for one in objects:
        for name, method, signature in waiting_methods(one):
            arguments = {**ARGUMENTS, "track": objects[7], "old": objects[7]}
            arguments |= {"new": objects[8], "stream": MediaStream([objects[7].video])}
            required = {
                parameter.name: arguments[parameter.name]
                for parameter in signature.parameters.values()
                if parameter.default is parameter.empty and parameter.name not in ("self", "more")
            }
            where = f"{type(one).__name__}.{name}"
            with pytest.raises(error, match="timeout") as caught:
                method(**required, timeout=timeout)
                pytest.fail(where)
            assert type(caught.value) is error, where
            tried.add(where)
    assert len(tried) > 60
    for one in objects[:5]:  # and nothing was closed
        assert getattr(one, "state", "") in ("connected", "joined", "", "open"), one
    assert objects[0].publish("deadlines", 1) is None
    assert objects[4].read(timeout=20).any()


@pytest.mark.parametrize(
    "make",
    [
        lambda timeout: SignallingClient(api_key="pk_live_x", timeout=timeout),
        lambda timeout: MeteredPeer(api_key="pk_live_x", timeout=timeout),
        lambda timeout: SfuClient(app_id="a", secret="b", timeout=timeout),
        lambda timeout: SfuApi("a", "b", timeout=timeout),
        lambda timeout: ControlPlane("sk_id_a", "sk_secret_b", timeout=timeout),
        lambda timeout: TurnApi("a", api_key="b", timeout=timeout),
        lambda timeout: LocalCloud(timeout=timeout),
        lambda timeout: MeteredPeer(api_key="pk_live_x", gather_timeout=timeout),
        lambda timeout: SfuClient(app_id="a", secret="b", gather_timeout=timeout),
    ],
)
def test_the_default_of_an_object_is_a_number(make: Any) -> None:
    make(math.inf)
    for bad in (-1, math.nan, True):
        with pytest.raises(ValueError, match="timeout must"):
            make(bad)
    with pytest.raises(TypeError, match="timeout must be a number of seconds, not str"):
        make("1")
    with pytest.raises(TypeError, match=r"not NoneType \(to wait without end: math.inf\)"):
        make(None)


# --- sent -----------------------------------------------------------------------------


def test_a_join_that_times_out_says_whether_it_left() -> None:
    for answer, sent, stage in ((mute, True, "acknowledgement"), (None, False, "welcome")):
        welcome = WELCOME if answer is not None else None
        with ScriptedServer(answer or mute, welcome=lambda number, it=welcome: it) as server:
            peer = MeteredPeer(api_key="pk_live_x", url=server.url)
            expiry = expired(
                lambda timeout, peer=peer: peer.join("room", timeout=timeout),
                lambda error, stage=stage: stage in str(error),
            )
            assert stage in str(expiry)
            assert expiry.sent is sent
            peer.close()


def acknowledge(connection: Scripted, frame: dict[str, Any]) -> None:
    """Acknowledge everything, and list nobody."""
    connection.send(type="ack", requestId=frame["requestId"])


def test_the_roster_waits_as_long_as_the_object_for_none() -> None:
    with (
        ScriptedServer(acknowledge) as server,
        SignallingClient(api_key="pk_live_x", url=server.url, timeout=0.2) as client,
    ):
        client.subscribe("c")
        assert client.roster("c") == client.roster("c", timeout=0) == {}
        for given, seconds in ((None, "0.2 s"), (0.1, "0.1 s")):
            with pytest.raises(MeteredTimeoutError, match=f"within {seconds}"):
                client.roster("c", timeout=given)
