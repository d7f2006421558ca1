"""Test the local cloud as an object: its options, its life, what clients take from it."""

from __future__ import annotations

import io
import socket
from typing import Any

import pytest

from metered_sync import (
    ClosedError,
    MeteredError,
    MeteredTimeoutError,
    NotConnectedError,
    SfuClient,
    SignallingClient,
    TurnApi,
)
from metered_sync.local import LocalCloud
from metered_sync.testing import ToneSource


def test_its_values_are_what_clients_take() -> None:
    with LocalCloud() as cloud:
        assert cloud.url.startswith("ws://127.0.0.1:")
        assert cloud.http_url.replace("http", "ws") == cloud.url
        with SignallingClient(**cloud.client_options()) as client:
            assert client.state == "connected"
        with SignallingClient(**cloud.token_options("me", ttl=60)) as client:
            assert client.peer_id == "me"
        with SfuClient(**cloud.sfu_options()) as sfu:
            assert sfu.session_id
        assert cloud.control_plane().usage().messages_used == 0
        assert TurnApi(**cloud.turn_options()).ice_servers()


def test_permissions_of_the_publishable_key() -> None:
    with (
        LocalCloud(permissions=["subscribe", "publish"]) as cloud,
        SignallingClient(**cloud.client_options()) as client,
    ):
        client.publish("x", 1)
        with pytest.raises(MeteredError, match="Send"):
            client.send("x", 1)
    with pytest.raises(ValueError, match=r"not \['fly'\]"):
        LocalCloud(permissions=["fly"])
    with pytest.raises(TypeError, match=r"permissions must be a list .* str: write \['publish'\]"):
        LocalCloud(permissions="publish")


@pytest.mark.parametrize(
    "options",
    [{"host": "0.0.0.0"}, {"port": -1}, {"port": "80"}, {"turn_secret": ""}, {"turn_secret": 7}],
)
def test_bad_arguments(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        LocalCloud(**options)


def test_a_bad_claim_is_told_before_connecting() -> None:
    with LocalCloud() as cloud:
        with pytest.raises(ValueError):
            cloud.token_options("")
        with pytest.raises(TypeError):
            cloud.token_options("me", no_such_claim=1)


def test_it_says_when_it_does_not_serve() -> None:
    cloud = LocalCloud()
    calls = {
        r"client_options\(\)": cloud.client_options,
        r"token_options\(\)": lambda: cloud.token_options("me"),
        r"room_options\(\)": lambda: cloud.room_options("me"),
        r"sfu_options\(\)": cloud.sfu_options,
        r"turn_options\(\)": cloud.turn_options,
        r"control_plane\(\)": cloud.control_plane,
        "url": lambda: cloud.url,
        "http_url": lambda: cloud.http_url,
        "port": lambda: cloud.port,
    }
    for what, call in calls.items():
        remedy = r"LocalCloud has not been started yet, .*; use `with`, or call start\(\)"
        with pytest.raises(NotConnectedError, match=f"^{what}: {remedy}$"):
            call()
    with pytest.raises(NotConnectedError, match="delay: LocalCloud has not been started"):
        cloud.faults.delay(1)
    assert "not serving" in repr(cloud)
    cloud.start()
    cloud.start()
    port = cloud.port
    cloud.close()
    cloud.close()
    with pytest.raises(ClosedError):
        cloud.start()
    with pytest.raises(ClosedError, match="make a new one"):
        cloud.faults.drop_connections()
    with socket.create_server(("127.0.0.1", port)):
        pass  # the port is free again


def test_a_port_that_is_taken() -> None:
    with LocalCloud() as cloud:
        other = LocalCloud(port=cloud.port)
        with pytest.raises(MeteredError, match="another port"):
            other.start()
        other.close()
        with LocalCloud(host="localhost") as third:
            assert third.url.startswith("ws://localhost:")
            with SignallingClient(**third.client_options()) as client:
                client.publish("x", 1)


def test_ipv6() -> None:
    with LocalCloud(host="::1") as cloud:
        assert cloud.url.startswith("ws://[::1]:")
        with SignallingClient(**cloud.client_options()) as client:
            client.publish("x", 1)
        with SfuClient(**cloud.sfu_options()) as sfu, ToneSource(frequency=440) as tone:
            assert sfu.subscribe(sfu.publish(tone.audio)).frames().get(timeout=20)


def test_two_clouds_do_not_know_each_other() -> None:
    with LocalCloud() as one, LocalCloud() as two:
        assert one.publishable_key != two.publishable_key
        with pytest.raises(MeteredError, match="4001"):
            SignallingClient(api_key=one.publishable_key, url=two.url).connect()


def test_what_is_no_http_is_answered_and_not_logged(cloud: LocalCloud, log: io.StringIO) -> None:
    for request in (
        b"\x16\x03\x01 this is TLS\r\n\r\n",
        b"BREW /v1/tokens HTTP/1.1\r\n\r\n",
        b"GET /v1?key=" + cloud.publishable_key.encode() + b"x" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /v1/usage HTTP/1.1\r\nno header\r\n\r\n",
        b"POST /v1/tokens HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n",
    ):
        with socket.create_connection(("127.0.0.1", cloud.port), timeout=5) as connection:
            connection.sendall(request)
            assert connection.recv(100).split()[1].startswith(b"4")
    assert "Traceback" not in log.getvalue()
    assert cloud.publishable_key not in log.getvalue()


def test_closing_while_media_flows() -> None:
    with (
        LocalCloud() as cloud,
        ToneSource(frequency=440) as tone,
        SfuClient(**cloud.sfu_options()) as a,
        SfuClient(**cloud.sfu_options(), recover=False) as b,
    ):
        frames = b.subscribe(a.publish(tone.audio)).frames()
        frames.get(timeout=20)
        cloud.close()
        with pytest.raises(MeteredError):
            while True:
                frames.get(timeout=60)


def test_a_timeout_that_cannot_be_closes_nothing() -> None:
    with LocalCloud() as cloud, SignallingClient(**cloud.client_options()) as client:
        for bad in (-1, float("nan")):
            with pytest.raises(ValueError, match="timeout"):
                cloud.close(timeout=bad)
        assert cloud.port
        client.publish("x", 1)
        cloud.faults.delay(0, timeout=5)
        with pytest.raises(MeteredTimeoutError, match="delay"):
            cloud.faults.delay(0, timeout=0)
