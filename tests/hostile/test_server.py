"""Connect to a messaging service that means harm, or is broken: frames, floods, half answers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from metered_sync import (
    DisconnectedError,
    Message,
    NegotiationFailedError,
    SfuClient,
    SignallingClient,
)
from metered_sync.local import LocalCloud
from metered_sync.wire.sdp import MAX_DESCRIPTION
from tests.hostile.test_descriptions import ATTACKS
from tests.support.mallory import MAX_GROWTH, memory, steps_of_the_loop
from tests.support.scripted_service import WELCOME, Scripted, ScriptedServer
from tests.support.scripted_sfu import ScriptedSfu
from tests.support.victim import MAX_STEP

ODD = (None, 7, -1, 1e300, "", "x" * 60_000, [], [[[]]], {}, {"a": []}, True)
NAMES = (
    "type", "requestId", "channel", "from", "data", "joined", "left", "code", "message",
    "retryAfterMs", "peerId", "metadata", "fromMetadata", "serverTime", "maxMessageSize",
)  # fmt: skip
KINDS = ("message", "direct", "presence", "error", "ack", "pong", "going_away", "welcome", "new")


def wrong_types() -> Iterator[str]:
    for kind in KINDS:
        for name in NAMES:
            for odd in ODD:
                yield json.dumps({"type": kind, "channel": "c", "from": "p", "data": 1, name: odd})


def members(count: int) -> list[dict[str, Any]]:
    return [{"peerId": f"p{n}", "metadata": {"n": [[]] * 10}} for n in range(count)]


FRAMES: dict[str, Callable[[], Iterator[str | bytes]]] = {
    "wrong types": wrong_types,
    "no JSON": lambda: iter(["{", "nonsense", "[" * 200_000, '{"a":' * 100_000, "9" * 60_000] * 5),
    "binary": lambda: iter([bytes(1000)] * 200),
    "unknown types": lambda: iter(['{"type":"x"}'] * 5000),
    "errors": lambda: iter(['{"type":"error","code":"internal_error"}'] * 5000),
    "going away": lambda: iter(['{"type":"going_away","retryAfterMs":1}'] * 5000),
    "acknowledgements": lambda: iter(['{"type":"ack","requestId":"none"}'] * 5000),
    "large messages": lambda: iter(
        [json.dumps({"type": "message", "channel": "c", "from": "p", "data": [[]] * 8_000})] * 40
    ),
    "members": lambda: iter(
        [json.dumps({"type": "presence", "channel": "c", "joined": members(1500), "left": []})] * 5
    ),
    "messages": lambda: iter(
        ['{"type":"message","channel":"c","from":"p","data":1}'] * 20_000
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FRAMES)
def test_frames(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """They cost no step of the loop too much, no memory, few lines; what is right arrives."""
    with (
        ScriptedServer() as server,
        SignallingClient(api_key="pk_live_x", url=server.url) as client,
        client.events(maxsize=100, max_bytes=1 << 20) as events,
    ):
        service: Scripted = server.accept()
        inbox = client.subscribe("c", max_bytes=1 << 20)
        before = memory()
        dearest = []
        for _ in range(3):  # (what else runs on the machine makes it dearer, never cheaper)
            with steps_of_the_loop() as costs:
                for frame in FRAMES[kind]():
                    service.say(frame)
                service.send(type="message", channel="c", **{"from": "p"}, data="over")
                begin = time.monotonic()
                while inbox.get(timeout=20).data != "over":
                    pass
            assert time.monotonic() - begin < 10
            dearest.append(max(costs))
            if dearest[-1] < MAX_STEP:
                break
        assert min(dearest) < MAX_STEP, dearest
        assert memory() - before < MAX_GROWTH
        assert len(events) <= 1000
        assert client.state == "connected"
    told = [one for one in caplog.records if one.name == "metered_sync"]
    assert len({one.getMessage() for one in told if one.levelname != "INFO"}) < 30


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1, 1 << 30])
def test_frames_that_are_too_long(size: int) -> None:
    """The connection ends by the frame's head: nothing of the frame is kept."""
    with (
        ScriptedServer() as server,
        SignallingClient(api_key="pk_live_x", url=server.url, reconnect=False) as client,
    ):
        service = server.accept()
        inbox = client.subscribe("c")
        before = memory()
        if size == 1 << 20:
            head = '{"type":"message","channel":"c","from":"p","data":"'
            service.say(head + "x" * (size - len(head) - 2) + '"}')
            assert len(inbox.get(timeout=20).data) > 1_000_000
        else:
            service.connection.socket.sendall(b"\x81\x7f" + size.to_bytes(8, "big") + bytes(60_000))
            with pytest.raises(DisconnectedError):
                inbox.get(timeout=20)
        assert memory() - before < MAX_GROWTH


def test_a_flood_before_the_welcome() -> None:
    with ScriptedServer(welcome=lambda number: None) as server:
        client = SignallingClient(api_key="pk_live_x", url=server.url, timeout=1)

        def flood() -> None:
            service = server.accept()
            try:
                for _ in range(20_000):
                    service.send(type="message", channel="c", **{"from": "p"}, data=1)
                service.send(**WELCOME)
            except OSError:
                pass

        thread = threading.Thread(target=flood)
        thread.start()
        before = memory()
        try:
            client.connect(timeout=20)
            with client.events(Message) as events:
                assert len(events) == 0
        finally:
            thread.join(20)
            client.close()
        assert memory() - before < MAX_GROWTH


@pytest.mark.parametrize(
    "attack", ["inherited lines", "as many lines as may be", "candidates of each", "parameters"]
)
def test_descriptions_of_an_sfu(shared_cloud: LocalCloud, attack: str) -> None:
    """They are refused by their size, or read, in steps of the loop that cost little."""
    text = ATTACKS[attack](MAX_DESCRIPTION)

    def spoil(status: int, body: Any) -> tuple[int, Any]:
        body["sessionDescription"]["sdp"] = text
        return status, body

    options = shared_cloud.sfu_options()
    with ScriptedSfu(behind=options["url"]) as sfu:
        sfu.spoil["session/new"] = spoil
        before = memory()
        dearest = []
        for _ in range(3):  # (what else runs on the machine makes it dearer, never cheaper)
            client = SfuClient(**options | {"url": sfu.url})
            with steps_of_the_loop() as costs:
                begin = time.monotonic()
                with pytest.raises(NegotiationFailedError) as caught:
                    client.connect(timeout=10)
                assert time.monotonic() - begin < 8
            client.close()
            assert caught.value.stage == "answer"
            dearest.append(max(costs))
            if dearest[-1] < MAX_STEP:
                break
        assert min(dearest) < MAX_STEP, dearest
        assert memory() - before < MAX_GROWTH
