"""Test the service's limits in the local cloud: rates, counts, sizes, the plan; lift them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from metered_sync.local import LocalCloud
from metered_sync.wire.limits import MAX_FRAME
from tests.conftest import wait_until
from tests.support.raw_client import OPTIONS, Raw, closed_with, raw


def usage(cloud: LocalCloud) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {cloud.key_id}:{cloud.key_secret}"}
    answer = requests.get(f"{cloud.http_url}/v1/usage", headers=headers, timeout=20)
    body: dict[str, Any] = answer.json()
    return body


# --- sizes, which nothing lifts ---


def frame_of(size: int, filler: str = "x") -> str:
    text = json.dumps({"type": "ping", "x": ""}, ensure_ascii=False)
    count, rest = divmod(size - len(text), len(filler.encode()))
    return text[:-2] + "y" * rest + filler * count + '"}'


@pytest.mark.parametrize("filler", ["x", "é", "\U0001f600"])
def test_a_frame_has_at_most_64_kilobytes(shared_cloud: LocalCloud, filler: str) -> None:
    with raw(shared_cloud) as client:
        client.connection.send(frame_of(MAX_FRAME, filler))
        assert client.receive() == {"type": "pong"}
        client.connection.send(frame_of(MAX_FRAME + 1, filler))
        assert closed_with(client) == 1009


@pytest.mark.parametrize("size", [MAX_FRAME + 1, 300_000, 2 << 20])
def test_a_frame_that_is_much_too_big(shared_cloud: LocalCloud, size: int) -> None:
    with raw(shared_cloud) as client:
        try:
            client.connection.send(b"x" * size)
        except ConnectionClosed:
            assert size > 1 << 20  # cut off while it was sending
        assert closed_with(client) in ((1009,) if size < 1 << 20 else (1009, 1006))


def test_fragments_count_together(shared_cloud: LocalCloud) -> None:
    with raw(shared_cloud) as client:
        client.connection.send(iter(['{"type":', '"ping"}']))
        assert client.receive() == {"type": "pong"}
        client.connection.send("x" * 40_000 for _ in range(2))
        assert closed_with(client) == 1009


@pytest.mark.parametrize("size", [125, 126, 65535, 65536, 69_000])
def test_frames_of_all_lengths_arrive(shared_cloud: LocalCloud, size: int) -> None:
    """A frame's length takes 1, 3 or 9 bytes (RFC 6455, section 5.2)."""
    metadata = {"m": "x" * 4000} if size > MAX_FRAME else None
    with raw(shared_cloud, "s", peer_metadata=metadata) as sender, raw(shared_cloud) as reader:
        reader.ask(type="subscribe", channel="c", includeSenderMetadata=True)
        message: dict[str, Any] = {"type": "message", "channel": "c", "from": "s", "data": ""}
        if metadata is not None:
            message["fromMetadata"] = metadata
        message["data"] = "x" * (size - len(json.dumps(message, separators=(",", ":"))))
        sender.send(type="publish", channel="c", data=message["data"])
        text = reader.connection.recv(timeout=20)
        assert len(text) == size
        assert json.loads(text) == message


# --- counts ---


def test_channels_of_a_connection(cloud: LocalCloud) -> None:
    with raw(cloud) as client:
        client.ask(type="subscribe", channel="a/*", requestId="p")  # a pattern counts as one
        for number in range(99):
            client.ask(type="subscribe", channel=str(number))
        answer = client.ask(type="subscribe", channel="one too many", requestId="r")
        assert (answer["code"], answer["requestId"]) == ("channel_limit_exceeded", "r")
        assert client.ask(type="subscribe", channel="5", requestId="h")["type"] == "ack"  # held
        client.receive()
        assert client.ask(type="unsubscribe", channel="5", requestId="u")["type"] == "ack"
        assert client.ask(type="subscribe", channel="room now", requestId="s")["type"] == "ack"


@pytest.mark.parametrize("frame", ['{"type":"ping"}', "nonsense", b"binary"])
def test_the_rate_of_frames(cloud: LocalCloud, frame: str | bytes) -> None:
    """Every frame counts, also one that is none."""
    with raw(cloud) as client, raw(cloud) as other:
        with pytest.raises(ConnectionClosed):
            for _ in range(1000):
                client.connection.send(frame)
                client.receive()
        assert closed_with(client) == 4011
        assert other.silent()  # the bucket is the connection's own
    with raw(cloud) as again:
        assert again.silent()


def test_a_burst_goes_through(cloud: LocalCloud) -> None:
    with raw(cloud) as client:
        for _ in range(199):
            client.send(type="ping")
        for _ in range(199):
            assert client.receive() == {"type": "pong"}
        assert client.silent()


def test_attempts_to_connect(cloud: LocalCloud) -> None:
    statuses = []
    for number in range(61):
        url = f"{cloud.url}/v1?token=garbage{number}"
        with pytest.raises(InvalidStatus) as caught, connect(url, **OPTIONS):
            pass
        statuses.append(caught.value.response.status_code)
    assert statuses == [401] * 60 + [429]
    with pytest.raises(InvalidStatus) as caught, raw(cloud):
        pass
    assert (caught.value.response.status_code, caught.value.response.body) == (429, b"")
    assert requests.get(cloud.http_url + "/v1/usage", timeout=20).status_code == 401  # not REST


# --- the plan ---


def test_connections_of_the_plan() -> None:
    with LocalCloud(max_connections=2) as cloud:
        url = f"{cloud.url}/v1?key={cloud.publishable_key}"
        with raw(cloud) as one, raw(cloud, "two"):
            for _ in range(2):
                with connect(url, **OPTIONS) as third:
                    with pytest.raises(ConnectionClosed) as caught:
                        third.recv(timeout=20)
                    assert caught.value.rcvd is not None
                    assert caught.value.rcvd.code == 4010
            assert one.silent()
            assert usage(cloud)["concurrentNow"] == usage(cloud)["peakConcurrent"] == 2
        wait_until(lambda: usage(cloud)["concurrentNow"] == 0)
        with raw(cloud) as later:
            assert later.silent()
        assert usage(cloud)["peakConcurrent"] == 2


def test_messages_of_the_plan() -> None:
    with LocalCloud(max_messages=3) as cloud, raw(cloud, "a") as a, raw(cloud, "b") as b:
        b.ask(type="subscribe", channel="x")
        assert a.ask(type="publish", channel="x", data=1, requestId="1")["type"] == "ack"
        assert a.ask(type="publish", channel="empty", data=1, requestId="2")["type"] == "ack"
        assert a.ask(type="send", to="b", data=2, requestId="3")["type"] == "ack"
        assert b.receive()["data"] == 1
        assert b.receive()["data"] == 2
        for fields in (
            {"type": "publish", "channel": "x", "data": 3},
            {"type": "send", "to": "b", "data": 3},
        ):
            answer = a.ask(**fields, requestId="r")
            assert (answer["code"], answer["requestId"]) == ("over_message_quota", "r")
        assert "requestId" not in a.ask(type="publish", channel="x", data=3)
        # What comes before the quota in the order of checks is told first, and not counted.
        assert a.ask(type="publish", channel="x")["code"] == "missing_data"
        assert a.ask(type="publish", channel="_system/x", data=1)["code"] == "channel_reserved"
        # Everything else goes on, arriving messages included (there are none).
        assert a.ask(type="subscribe", channel="x", requestId="s")["type"] == "ack"
        assert b.receive()["joined"] == [{"peerId": "a"}]
        assert b.silent()
        headers = {"Authorization": f"Bearer {cloud.key_id}:{cloud.key_secret}"}
        answer = requests.post(
            f"{cloud.http_url}/v1/channels/x/publish",
            json={"data": 1},
            headers=headers,
            timeout=5,
        )
        assert (answer.status_code, answer.json()["error"]) == (429, "over_message_quota")
        assert usage(cloud)["messagesUsed"] == 7  # attempts included
        assert usage(cloud)["overageMessages"] == 0
        url = f"{cloud.url}/v1?key={cloud.publishable_key}"
        with connect(url, **OPTIONS) as connection, pytest.raises(ConnectionClosed) as caught:
            connection.recv(timeout=20)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 4010


def test_lifting_the_limits() -> None:
    with LocalCloud(limits=False, max_connections=1, max_messages=2) as cloud:
        for _ in range(70):
            with pytest.raises(InvalidStatus) as caught, connect(f"{cloud.url}/v1", **OPTIONS):
                pass
            assert caught.value.response.status_code == 401
        with raw(cloud) as one, raw(cloud) as two:
            for number in range(101):
                assert one.ask(type="subscribe", channel=str(number))["type"] == "presence"
            for _ in range(300):
                one.send(type="publish", channel="x", data=1)
            assert two.silent()
            assert one.silent()
            report = usage(cloud)
        assert report["plan"]["overagesEnabled"] is True
        assert (report["messagesUsed"], report["overageMessages"]) == (300, 298)
        assert (report["peakConcurrent"], report["overageConnections"]) == (2, 1)


@pytest.mark.parametrize("name", ["max_connections", "max_messages"])
def test_limits_that_are_none(name: str) -> None:
    for value in (-1, 1.5, True, "7", None):
        with pytest.raises(ValueError, match=name):
            LocalCloud(**{name: value})  # type: ignore[arg-type]
    with LocalCloud(**{name: 0}) as cloud:  # type: ignore[arg-type]
        url = f"{cloud.url}/v1?key={cloud.publishable_key}"
        with connect(url, **OPTIONS) as connection, pytest.raises(ConnectionClosed) as caught:
            Raw(connection)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 4010
