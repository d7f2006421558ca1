"""Test the log of frames, and that a cloud can be made as new."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from metered_sync import (
    ClosedError,
    MeteredTimeoutError,
    NotConnectedError,
    Outage,
    ReconnectOptions,
    SfuClient,
    SignallingClient,
    TurnApi,
    WrongThreadError,
)
from metered_sync.local import LocalCloud
from metered_sync.local.frame_log import LoggedFrame
from tests.conftest import wait_until
from tests.support.raw_client import Raw, closed_with, raw

SOON = ReconnectOptions(initial_delay=0.05, max_delay=0.1)


def publish(client: Raw, data: object) -> dict[str, Any]:
    return client.ask(type="publish", channel="chat", data=data, requestId="1")


def seen(cloud: LocalCloud) -> list[tuple[str, bool, Any]]:
    return [(frame.peer, frame.sent, frame.type) for frame in cloud.log]


def test_it_has_what_clients_sent_and_got_in_order(cloud: LocalCloud) -> None:
    assert len(cloud.log) == 0
    with raw(cloud, "ann") as ann, raw(cloud, "bob") as bob:
        bob.ask(type="subscribe", channel="chat", requestId="1")
        publish(ann, {"x": "ä" * 5_000})
        frame = cloud.log.wait_for("message", peer="bob", channel="chat", timeout=20)
        ann.connection.send("no JSON")
        error = cloud.log.wait_for("error", peer="ann", timeout=20)
    assert frame.data == {"x": "ä" * 5_000}
    assert error.fields["code"] == "malformed_message"
    sent = [frame for frame in cloud.log if frame.sent]
    assert [frame.type for frame in sent] == ["subscribe", "publish", None]
    assert sent[2].fields == {}
    assert sent[2].channel is None
    kinds = seen(cloud)
    assert kinds.index(("ann", True, "publish")) < kinds.index(("bob", False, "message"))
    assert kinds.index(("bob", True, "subscribe")) < kinds.index(("bob", False, "ack"))


def test_it_takes_down_nothing_before_anybody_looks() -> None:
    with LocalCloud() as cloud, SignallingClient(**cloud.token_options("ann")) as client:
        client.publish("chat", 1)
        assert seen(cloud) == []
        client.publish("chat", 2)
        assert cloud.log.wait_for("publish").data == 2


def test_frames_of_every_size_are_read_back(cloud: LocalCloud) -> None:
    cloud.log.clear()
    # (The sender's name makes a message longer than what was published.)
    with raw(cloud, "a" * 128) as ann, raw(cloud, "bob") as bob:
        bob.ask(type="subscribe", channel="chat", requestId="1")
        for size in (0, 40, 60, 126, 200, 64_000, 65_430):
            cloud.log.clear()
            publish(ann, "x" * size)
            assert len(cloud.log.wait_for("message", timeout=20).data) == size


def test_waiting_for_what_has_not_come_yet(cloud: LocalCloud) -> None:
    found: list[LoggedFrame] = []
    waiting = threading.Thread(
        target=lambda: found.append(cloud.log.wait_for("publish", peer="bob", timeout=20))
    )
    waiting.start()
    with raw(cloud, "ann") as ann, raw(cloud, "bob") as bob:
        publish(ann, 1)
        publish(bob, 2)
    waiting.join(20)
    assert [frame.data for frame in found] == [2]


def test_what_does_not_come_is_told_with_what_there_is(cloud: LocalCloud) -> None:
    cloud.log.clear()
    with raw(cloud, "ann") as ann:
        publish(ann, 1)
        for wrong in ({"peer": "bob"}, {"channel": "other"}, {"peer": "ann", "channel": "other"}):
            with pytest.raises(MeteredTimeoutError, match=r"'publish'.* it has .*1 publish"):
                cloud.log.wait_for("publish", timeout=0, **wrong)
    with pytest.raises(TypeError, match="type must be a frame's type"):
        cloud.log.wait_for(None, timeout=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timeout"):
        cloud.log.wait_for("nothing", timeout=-1)


def test_iterating_is_a_snapshot(cloud: LocalCloud) -> None:
    cloud.log.clear()
    with raw(cloud, "ann") as ann:
        publish(ann, 1)
        for number, _ in enumerate(cloud.log):
            assert number < 10
            publish(ann, 2)


def test_it_can_be_read_when_the_cloud_is_closed() -> None:
    cloud = LocalCloud()
    with pytest.raises(NotConnectedError):
        cloud.log.wait_for("publish", timeout=0)
    with cloud, raw(cloud, "ann") as ann:
        publish(ann, 1)
    assert cloud.log.wait_for("publish").data == 1
    with pytest.raises(ClosedError):
        cloud.log.wait_for("subscribe", timeout=5)


def test_nobody_waits_on_a_loop_of_the_library(cloud: LocalCloud) -> None:
    caught: list[BaseException] = []

    def provide() -> str:
        return str(cloud.token_options("ann")["token_provider"]())

    async def wait() -> None:
        try:
            cloud.log.wait_for("nothing", timeout=20)
        except BaseException as error:
            caught.append(error)

    with SignallingClient(token_provider=provide, url=cloud.url) as client:
        client._call(wait, deadline=client._deadline(5), what="wait")
    assert isinstance(caught[0], WrongThreadError)


def test_credentials_of_a_welcome_are_not_shown() -> None:
    with LocalCloud(ice_servers=["turn:127.0.0.1:3478"]) as cloud:
        cloud.log.clear()
        with raw(cloud, "ann"):
            welcome = cloud.log.wait_for("welcome")
    (server,) = welcome.fields["metadata"]["iceServers"]
    assert server["credential"] not in repr(welcome)
    assert repr(welcome) == "<ann got welcome>"
    assert str(server["credential"]) not in repr(cloud.log)


def test_one_that_is_reset_is_as_new(cloud: LocalCloud) -> None:
    cloud.log.clear()
    where = cloud.url, cloud.publishable_key
    turn = TurnApi(**cloud.turn_options())
    with raw(cloud, "ann") as ann, SfuClient(**cloud.sfu_options()) as sfu:
        publish(ann, 1)
        turn.create_credential()
        cloud.faults.delay(30)
        cloud.faults.hold_acks(30)
        cloud.faults.refuse_connections(30)
        cloud.faults.lose_media(1)
        first = sfu.session_id
        cloud.reset()
        assert closed_with(ann) == 1001
        wait_until(lambda: sfu.session_id != first)  # a client that is still held comes back
    assert (cloud.url, cloud.publishable_key) == where
    assert seen(cloud) == []
    assert turn.credentials().total_records == 0
    usage = cloud.control_plane().usage()
    assert (usage.messages_used, usage.concurrent_now, usage.peak_concurrent) == (0, 0, 0)
    with raw(cloud, "ann") as ann:
        assert publish(ann, 1)["type"] == "ack"


def test_attempts_to_connect_are_forgotten(cloud: LocalCloud) -> None:
    for _ in range(3):
        for number in range(40):
            with raw(cloud, f"peer-{number}"):
                pass
        cloud.reset()


def test_a_client_outlives_a_reset(cloud: LocalCloud) -> None:
    with SignallingClient(**cloud.token_options("ann"), reconnect=SOON) as client:
        inbox = client.subscribe("chat")
        with client.events(Outage) as outages:
            cloud.reset()
            outages.get(timeout=20)
        cloud.control_plane().publish("chat", 1)
        assert inbox.get(timeout=20).data == 1


def test_resetting_needs_a_cloud_that_serves() -> None:
    cloud = LocalCloud()
    with pytest.raises(NotConnectedError):
        cloud.reset()
    with cloud:
        cloud.reset()
    with pytest.raises(ClosedError):
        cloud.reset()


def test_json_that_is_no_object_has_no_fields() -> None:
    for text in ("[]", "1", json.dumps("x"), "{", "[" * 100_000, b"\xff"):
        frame = LoggedFrame("ann", True, text, 0.0)
        assert (frame.fields, frame.type, frame.data) == ({}, None, None)
