"""What the clients send, compared frame by frame: this library's and the published ones."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from metered_sync import ReconnectOptions, SignallingClient
from tests.conftest import wait_until
from tests.scenarios.interop.parties import FAST, Driver
from tests.support.scripted_service import ScriptedServer, mute

KEY = "pk_live_+/=&%"
TOKEN = "head-er.pay_load.signature"


class Ours:
    """This library's client, with the names of a :class:`Party`."""

    def __init__(self, client: SignallingClient) -> None:
        self._client = client
        self.publish, self.send = client.publish, client.send
        self.unsubscribe, self.close = client.unsubscribe, client.close
        client.connect()

    @property
    def state(self) -> str:
        return self._client.state

    def subscribe(self, channel: str, metadata: bool = False) -> None:
        self._client.subscribe(channel, include_sender_metadata=metadata)


@contextmanager
def connected(driver: Driver | None, server: ScriptedServer, **options: Any) -> Iterator[Any]:
    """Connect a published client, or this library's for ``None``, and close it at the end."""
    options = {"url": server.url, "api_key": KEY} | options
    if driver is not None:
        with driver.party(**options) as them:
            yield them
        return
    us = SignallingClient(
        url=server.url,
        api_key=options["api_key"],
        token_provider=options.get("token_provider"),
        inactivity_timeout=options.get("inactivity", 60.0),
        reconnect=ReconnectOptions(initial_delay=FAST["initial"], max_delay=FAST["most"]),
    )
    with us:
        yield Ours(us)


def without_ids(frames: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return frames with a mark in place of the request's id, which must be a proper one."""
    ids = [frame["requestId"] for frame in frames if "requestId" in frame]
    assert len(set(ids)) == len(ids)
    assert all(isinstance(i, str) and 0 < len(i.encode()) <= 128 for i in ids)
    return [frame | ({"requestId": "…"} if "requestId" in frame else {}) for frame in frames]


def everything(client: Any, server: ScriptedServer) -> list[Any]:
    """Use all that a client can do; return what the server saw."""
    first = server.accept()
    client.subscribe("plain")
    client.subscribe("ünï/cödé 🎉", metadata=True)
    client.subscribe("dropped")
    client.publish("plain", {"a": [1, -0.5, None, True, "é", {}], "": "\u2028\x7f"})
    client.publish("not subscribed", None)
    client.send("peer-1", "hi")
    client.send("peer 2 !~", None)
    client.unsubscribe("dropped")
    first.drop()
    assert first.ended() == (1006, "")
    second = server.accept()
    wait_until(lambda: len(second.frames) == 2)
    repeated = sorted(without_ids(second.frames), key=lambda frame: str(frame["channel"]))
    second.close(1001, "restart")
    third = server.accept()
    wait_until(lambda: client.state == "connected")
    client.publish("plain", "last")
    client.close()
    return [without_ids(first.frames), repeated, third.ended()]


def seen(driver: Driver | None) -> list[Any]:
    with ScriptedServer() as server, connected(driver, server) as client:
        return everything(client, server)


def test_every_frame_of_a_session(published: Driver) -> None:
    ours = seen(None)
    assert ours == seen(published)
    subscribe = {"type": "subscribe", "requestId": "…"}
    with_metadata = {"channel": "ünï/cödé 🎉", "includeSenderMetadata": True}
    first, repeated, end = ours
    assert first[:2] == [subscribe | {"channel": "plain"}, subscribe | with_metadata]
    assert repeated == first[:2]
    assert end == (1000, "client requested close")


# --- where they differ, and why -------------------------------------------------------


def test_subscribing_again_is_not_sent_where_it_changes_nothing(published: Driver) -> None:
    # Here it is a further reader, and any reader that asks has metadata; there it is another
    # frame, and the last one wins.
    def sent(driver: Driver | None) -> list[bool]:
        with ScriptedServer() as server, connected(driver, server) as client:
            for metadata in (False, False, True, True, False):
                client.subscribe("again", metadata)
            frames = server.accept().frames
            assert all(frame["type"] == "subscribe" for frame in frames)
            return ["includeSenderMetadata" in frame for frame in frames]

    assert sent(published) == [False, False, True, True, False]
    assert sent(None) == [False, True]


def test_unsubscribing_from_nothing_is_not_sent(published: Driver) -> None:
    def sent(driver: Driver | None) -> list[str]:
        with ScriptedServer() as server, connected(driver, server) as client:
            client.unsubscribe("never there")
            client.publish("c", 1)
            return [frame["type"] for frame in server.accept().frames]

    assert sent(published) == ["unsubscribe", "publish"]
    assert sent(None) == ["publish"]


def test_request_ids_are_shorter(published: Driver) -> None:
    # A counter behind a random prefix: a UUID each takes longer to make than the frame.
    def sent(driver: Driver | None) -> str:
        with ScriptedServer() as server, connected(driver, server) as client:
            client.publish("c", 1)
            return str(server.accept().frames[0]["requestId"])

    assert uuid.UUID(sent(published)).version == 4
    assert len(sent(None)) < 36
    assert sent(None) != sent(None)


def test_text_is_sent_as_utf_8(published: Driver) -> None:
    # The Python client escapes what is not ASCII, to two or three times its size.
    text = "é日本語🎉\u2028"

    def sent(driver: Driver | None) -> str | bytes:
        with ScriptedServer() as server, connected(driver, server) as client:
            client.publish("c", text)
            return server.accept().texts[0]

    assert text in str(sent(None))
    assert (text in str(sent(published))) is (published.language == "javascript")


# --- silence --------------------------------------------------------------------------


def test_pings_and_the_end_of_a_silent_connection(published: Driver) -> None:
    # All ping after a second (a third of the timeout, if that is longer), and leave at last.
    for driver in (None, published):
        with ScriptedServer(mute) as server, connected(driver, server, inactivity=2.0):
            first = server.accept()
            assert first.ended()[0] == 4000  # (the reason's words differ)
            assert first.frames
            assert all(frame == {"type": "ping"} for frame in first.frames)
            server.accept()  # and comes back


# --- the upgrade ----------------------------------------------------------------------


def upgrade(driver: Driver | None, **options: Any) -> tuple[str, dict[str, str]]:
    with ScriptedServer() as server, connected(driver, server, **options):
        first = server.accept()
        return first.path, {name.lower(): value for name, value in first.headers.raw_items()}


@pytest.mark.parametrize(
    ("options", "query"),
    [
        ({"api_key": KEY}, ("key", KEY)),
        ({"api_key": None, "token_provider": lambda: TOKEN}, ("token", TOKEN)),
    ],
)
def test_the_upgrade(published: Driver, options: dict[str, Any], query: tuple[str, str]) -> None:
    path, headers = upgrade(None, **options)
    path_there, headers_there = upgrade(published, **options)
    assert path == path_there
    assert urlsplit(path).path == "/v1"
    assert parse_qsl(urlsplit(path).query, strict_parsing=True) == [query]
    for name in ("sec-websocket-protocol", "authorization", "origin", "cookie"):
        assert name not in headers
        assert name not in headers_there
    # No compression here: for frames of this size it costs more than it saves.
    differ = {"sec-websocket-extensions", "sec-websocket-key", "user-agent", "host"}
    assert "sec-websocket-extensions" not in headers
    assert "permessage-deflate" in headers_there["sec-websocket-extensions"]
    common = {name: headers[name].lower() for name in headers.keys() - differ}
    assert common == {name: headers_there[name].lower() for name in headers_there.keys() - differ}


def test_a_token_for_each_connection(published: Driver) -> None:
    def asked(driver: Driver | None) -> list[str]:
        numbers = iter(range(100))
        options = {"api_key": None, "token_provider": lambda: f"to.ken.{next(numbers)}"}
        with ScriptedServer() as server, connected(driver, server, **options):
            for end in ((4002, "expired"), (1001, "restart"), (1008, "")):
                server.accept().close(*end)
            server.accept()
            return server.upgrades

    assert asked(None) == asked(published) == [f"/v1?token=to.ken.{n}" for n in range(4)]
