"""Test the control plane against the local cloud, and against servers that misbehave."""

from __future__ import annotations

import asyncio
import io
import json
import math
import os
import pickle
import queue
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from metered_sync import (
    ClosedError,
    ControlPlane,
    ControlPlaneError,
    Direct,
    Disconnected,
    IceServer,
    Message,
    MeteredTimeoutError,
    OversizedPayloadError,
    Presence,
    PresencePeer,
    ServerRequestError,
    SignallingClient,
    SignallingConnectError,
    WrongThreadError,
    mint_token,
)
from metered_sync.bridge import engines
from metered_sync.local import LocalCloud
from metered_sync.wire.secrets import ScrubbedError
from metered_sync.wire.tokens import key_id, parse_claims
from tests.conftest import run_script, wait_until
from tests.rules.test_interrupt import interrupt
from tests.rules.test_secrets import shown
from tests.support.deadlines import expired
from tests.support.scripted_http import ScriptedHttp

KEY_ID, SECRET = "sk_id_1234", "sk_secret_HUSHHUSH"

CALLS: dict[str, Callable[[ControlPlane], Any]] = {
    "mint_token": lambda control: control.mint_token(peer_id="alice"),
    "peers": lambda control: control.peers("room"),
    "publish": lambda control: control.publish("room", 1),
    "disconnect": lambda control: control.disconnect("alice"),
    "usage": lambda control: control.usage(),
}


@pytest.fixture
def control(scripted: ScriptedHttp) -> Iterator[ControlPlane]:
    with ControlPlane(KEY_ID, SECRET, url=scripted.origin) as control:
        yield control


# --- with the local cloud ---------------------------------------------------------------


@pytest.fixture
def served(cloud: LocalCloud) -> Iterator[ControlPlane]:
    with ControlPlane(cloud.key_id, cloud.key_secret, url=cloud.http_url) as control:
        yield control


def refusal(client: SignallingClient, act: Callable[[SignallingClient], Any]) -> str | None:
    """Return the code with which the server refuses something, ``None`` if it does not."""
    try:
        act(client)
    except ServerRequestError as error:
        return error.code
    return None


def facts(cloud: LocalCloud, token: str) -> dict[str, Any]:
    """Connect with a token, and return all that it brings about."""
    with (
        SignallingClient(**cloud.client_options()) as witness,
        SignallingClient(token_provider=token, url=cloud.url) as client,
        witness.events(Presence, Direct) as seen,
    ):
        witness.subscribe("rooms/1")
        client.subscribe("rooms/1")
        presence = seen.get(timeout=20)
        while not presence.joined:  # the snapshot
            presence = seen.get(timeout=20)
        client.send(witness.peer_id or "", "hello")
        direct = seen.get(timeout=20)
        assert client.expires_at is not None
        return {
            "peer": client.peer_id,
            "as long as asked": 540 < client.expires_at - time.time() <= 601,
            "ice servers": client.ice_servers,
            "as others see it": presence.joined,
            "its direct message": direct,
            "allowed": refusal(client, lambda c: c.subscribe("rooms/2")),
            "another channel": refusal(client, lambda c: c.subscribe("halls/1")),
            "a deeper channel": refusal(client, lambda c: c.subscribe("rooms/1/x")),
            "not permitted": refusal(client, lambda c: c.publish("rooms/1", 1)),
        }


def test_both_ways_of_minting_give_the_same_token(cloud: LocalCloud, served: ControlPlane) -> None:
    wish: dict[str, Any] = {
        "peer_id": "alice",
        "channels": ["rooms/*"],
        "permissions": ["subscribe", "presence", "send"],
        "ttl": 600,
        "metadata": {"iceServers": [{"urls": "stun:stun.example:80"}]},
        "peer_metadata": {"name": "Alice é"},
    }
    minted = served.mint_token(**wish)
    signed = mint_token(cloud.key_id, cloud.key_secret, **wish)
    assert facts(cloud, minted.token) == (found := facts(cloud, signed))
    assert found == {
        "peer": "alice",
        "as long as asked": True,
        "ice servers": (IceServer(("stun:stun.example:80",)),),
        "as others see it": (PresencePeer("alice", {"name": "Alice é"}),),
        "its direct message": Direct("alice", "hello", {"name": "Alice é"}),
        "allowed": None,
        "another channel": "channel_not_authorized",
        "a deeper channel": "channel_not_authorized",
        "not permitted": "action_not_permitted",
    }
    assert key_id(minted.token) == key_id(signed) == cloud.key_id
    both = [parse_claims(token, cloud.key_secret) for token in (minted.token, signed)]
    assert abs(both[0].expires_at - both[1].expires_at) <= 10
    assert both[0].expires_at == minted.expires_at


def test_a_token_that_asks_for_nothing_in_particular(
    cloud: LocalCloud, served: ControlPlane
) -> None:
    token = served.mint_token(peer_id="bob").token
    for text in (token, mint_token(cloud.key_id, cloud.key_secret, peer_id="bob")):
        with SignallingClient(token_provider=text, url=cloud.url) as client:
            client.publish("anywhere", 1)
            assert client.expires_at == pytest.approx(time.time() + 3600, abs=60)


def test_publishing_from_outside(cloud: LocalCloud, served: ControlPlane) -> None:
    with SignallingClient(**cloud.client_options()) as client:
        for channel in ("room", "app/room é?#%", "a//b", "~x y"):
            inbox = client.subscribe(channel, include_sender_metadata=True)
            served.publish(channel, {"text": "grüß"}, sender="bot", metadata={"name": "Bot"})
            message = inbox.get(timeout=20)
            assert (message.channel, message.data) == (channel, {"text": "grüß"})
            assert (message.sender_peer_id, message.sender_metadata) == ("bot", {"name": "Bot"})
            served.publish(channel, None)
            message = inbox.get(timeout=20)
            assert (message.data, message.sender_peer_id) == (None, "system")


def test_who_is_there_and_sending_them_away(cloud: LocalCloud, served: ControlPlane) -> None:
    assert served.peers("room") == {}
    assert served.disconnect("alice") == 0
    alice = cloud.token_options("alice", peer_metadata={"role": "guest"})
    with (
        SignallingClient(**alice) as one,
        SignallingClient(**alice) as two,
        SignallingClient(**cloud.token_options("bob")) as bob,
    ):
        for client in (one, two, bob):
            client.subscribe("room")
        assert served.peers("room") == {"alice": {"role": "guest"}, "bob": None}
        with one.events(Disconnected) as gone:
            assert served.disconnect("alice") == 2
            event = gone.get(timeout=20)
        assert (event.code, event.will_reconnect) == (4020, False)
        wait_until(lambda: served.peers("room") == {"bob": None})


def test_usage_counts(cloud: LocalCloud, served: ControlPlane) -> None:
    before = served.usage()
    with SignallingClient(**cloud.client_options()) as client:
        client.publish("room", 1)
        served.publish("room", 2)
        during = served.usage()
    assert during.concurrent_now == before.concurrent_now + 1
    assert during.messages_used == before.messages_used + 2
    assert during.plan.max_concurrent_connections == 100
    assert during.app_id


def test_another_services_keys(cloud: LocalCloud, served: ControlPlane) -> None:
    with pytest.raises(ControlPlaneError, match=r"sk_id_1234.*one pair") as caught:
        ControlPlane(KEY_ID, SECRET, url=cloud.http_url).usage()
    assert (caught.value.status, caught.value.code) == (401, "unauthorized")
    # A token of theirs is no use either; with mint_token this shows at connecting only.
    token = mint_token(KEY_ID, SECRET * 2, peer_id="alice")
    with pytest.raises(SignallingConnectError) as refused:
        SignallingClient(token_provider=token, url=cloud.url).connect()
    assert refused.value.close_code == 4001


# --- what is sent -----------------------------------------------------------------------


def test_a_token_is_asked_for(scripted: ScriptedHttp, control: ControlPlane) -> None:
    scripted.script = [(200, {}, b'{"token": "eyJ.HUSHHUSH.s", "expiresAt": 1900000000}')] * 2
    token = control.mint_token(
        peer_id="alice",
        channels=(channel for channel in ("a/*", "b")),
        permissions={"send"},
        ttl=60.9,
        metadata={"m": 1},
        peer_metadata={"p": "é"},
    )
    assert (token.token, token.expires_at) == ("eyJ.HUSHHUSH.s", 1_900_000_000)
    assert "HUSHHUSH" not in shown(token)
    control.mint_token(peer_id="bob")
    first, second = scripted.asked
    assert (first.method, first.path) == ("POST", "/v1/tokens")
    assert first.headers["Authorization"] == f"Bearer {KEY_ID}:{SECRET}"
    assert first.headers["Content-Type"] == "application/json"
    assert json.loads(first.body) == {
        "peerId": "alice",
        "channels": ["a/*", "b"],
        "permissions": ["send"],
        "expiresInSec": 60,
        "metadata": {"m": 1},
        "peerMetadata": {"p": "é"},
    }
    assert json.loads(second.body) == {"peerId": "bob", "expiresInSec": 3600}


def test_names_are_percent_encoded(scripted: ScriptedHttp, control: ControlPlane) -> None:
    scripted.script = [(200, {}, b'{"peers": []}'), (200, {}, b""), (200, {}, b'{"closed": 2}')]
    assert control.peers("app/room é?") == {}
    control.publish("a/b", None)
    assert control.disconnect("../tokens") == 2
    assert [(asked.method, asked.path) for asked in scripted.asked] == [
        ("GET", "/v1/channels/app%2Froom%20%C3%A9%3F/peers"),
        ("POST", "/v1/channels/a%2Fb/publish"),
        ("DELETE", "/v1/peers/..%2Ftokens"),
    ]


def test_data_that_is_no_json_are_named_alone(served: ControlPlane) -> None:
    with pytest.raises(TypeError, match=r"\(at data\['at'\]: send list"):
        served.publish("room", {"at": {1, 2}})


@pytest.mark.parametrize("answer", [b"", b"{}", b"published", b'{"channel": "room"}'])
def test_any_answer_to_a_publish_will_do(
    scripted: ScriptedHttp, control: ControlPlane, answer: bytes
) -> None:
    scripted.script = [(202, {}, answer)]
    control.publish("room", {"a": [1, None]}, sender="bot", metadata={"name": "Bot"})
    assert json.loads(scripted.asked[0].body) == {
        "data": {"a": [1, None]},
        "from": "bot",
        "peerMetadata": {"name": "Bot"},
    }


# --- what is told before anything is sent -----------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.mint_token(peer_id=""),
        lambda c: c.mint_token(peer_id=None),
        lambda c: c.mint_token(peer_id="é"),
        lambda c: c.mint_token(peer_id="x" * 129),
        lambda c: c.mint_token(peer_id="x", channels="room"),
        lambda c: c.mint_token(peer_id="x", channels=7),
        lambda c: c.mint_token(peer_id="x", channels=[7]),
        lambda c: c.mint_token(peer_id="x", channels=[""]),
        lambda c: c.mint_token(peer_id="x", channels=["_System/x"]),
        lambda c: c.mint_token(peer_id="x", channels=["a"] * 101),
        lambda c: c.mint_token(peer_id="x", permissions="send"),
        lambda c: c.mint_token(peer_id="x", permissions=["fly"]),
        lambda c: c.mint_token(peer_id="x", ttl=0.5),
        lambda c: c.mint_token(peer_id="x", ttl=86401),
        lambda c: c.mint_token(peer_id="x", ttl=True),
        lambda c: c.mint_token(peer_id="x", ttl="60"),
        lambda c: c.mint_token(peer_id="x", ttl=math.nan),
        lambda c: c.mint_token(peer_id="x", metadata=[]),
        lambda c: c.mint_token(peer_id="x", metadata={"x": "y" * 8192}),
        lambda c: c.mint_token(peer_id="x", peer_metadata={"x": "y" * 4096}),
        lambda c: c.mint_token(peer_id="x", metadata={"x": math.nan}),
        lambda c: c.peers(""),
        lambda c: c.peers("x" * 257),
        lambda c: c.peers("_metered/x"),
        lambda c: c.peers(None),
        lambda c: c.publish("_Internal/x", 1),
        lambda c: c.publish("room", object()),
        lambda c: c.publish("room", math.inf),
        lambda c: c.publish("room", 1, sender=""),
        lambda c: c.publish("room", 1, sender=None),
        lambda c: c.publish("room", 1, metadata={"x": "y" * 4096}),
        lambda c: c.publish("room", 1, metadata=7),
        lambda c: c.disconnect(""),
        lambda c: c.disconnect("é"),
        lambda c: c.usage(timeout=-1),
        lambda c: c.usage(timeout=True),
    ],
)
def test_bad_arguments(scripted: ScriptedHttp, control: ControlPlane, call: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        call(control)
    assert scripted.asked == []


def test_bodies_are_measured_whole(scripted: ScriptedHttp, control: ControlPlane) -> None:
    scripted.script = [(200, {}, b"")]
    around = len('{"data":"","from":"system"}')
    control.publish("room", "é" * ((32768 - around) // 2))
    assert len(scripted.asked[0].body) in (32767, 32768)
    with pytest.raises(OversizedPayloadError) as caught:
        control.publish("room", "x" * (32768 - around + 1))
    assert (caught.value.size, caught.value.cap) == (32769, 32768)
    channels = [f"{number:03}" + "x" * 253 for number in range(100)]
    with pytest.raises(OversizedPayloadError, match="mint a token for 'alice'"):
        control.mint_token(peer_id="alice", channels=channels, metadata={"x": "y" * 8000})
    assert len(scripted.asked) == 1


@pytest.mark.parametrize(
    ("key_id", "secret", "words"),
    [
        (None, None, "METERED_KEY_ID"),
        (KEY_ID, None, "METERED_KEY_SECRET"),
        ("", SECRET, "key_id must be"),
        (KEY_ID, 7, "secret must be"),
        ("pk_live_HUSHHUSH", SECRET, "publishable"),
        (SECRET, KEY_ID, "swapped"),
        (KEY_ID, SECRET + "\n", "line break"),
        (KEY_ID, "sk_secret_HUSHHUSH é", "space"),
    ],
)
def test_bad_keys(key_id: Any, secret: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("METERED_KEY_ID", raising=False)
    monkeypatch.delenv("METERED_KEY_SECRET", raising=False)
    with pytest.raises(ValueError, match=words) as caught:
        ControlPlane(key_id, secret)
    assert "HUSHHUSH" not in shown(caught.value)


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METERED_KEY_ID", KEY_ID)
    monkeypatch.setenv("METERED_KEY_SECRET", SECRET)
    monkeypatch.delenv("METERED_URL", raising=False)
    assert repr(ControlPlane()) == f"<ControlPlane https://rms.metered.ca, key {KEY_ID}>"
    for url, origin in (
        ("wss://messaging.example", "https://messaging.example"),
        ("ws://127.0.0.1:9292/", "http://127.0.0.1:9292"),
        ("https://messaging.example", "https://messaging.example"),
    ):
        monkeypatch.setenv("METERED_URL", url)
        assert origin in repr(ControlPlane())
    assert "https://other.example," in repr(ControlPlane(url="https://other.example"))
    monkeypatch.setenv("METERED_URL", "ws://messaging.example")
    with pytest.raises(ValueError, match="in the clear"):
        ControlPlane()


# --- refusals ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "status", "body", "words"),
    [
        ("usage", 401, {"error": "unauthorized", "message": "no"}, ["usage", KEY_ID, "one pair"]),
        ("peers", 403, {"error": "action_not_permitted"}, ["'room'", KEY_ID, '"presence"']),
        ("publish", 403, {"error": "action_not_permitted"}, ["'room'", KEY_ID, '"publish"']),
        ("publish", 403, {"error": "channel_not_authorized"}, ["'room'", KEY_ID, "patterns"]),
        ("mint_token", 403, {"error": "action_not_permitted"}, ["'alice'", "is to grant"]),
        ("mint_token", 403, {"error": "new_code"}, [KEY_ID, "may not"]),
        ("mint_token", 400, {"error": "invalid_request", "message": "so"}, ["so"]),
        ("publish", 413, {"error": "invalid_request"}, ["less"]),
        ("disconnect", 404, "<html>", ["'alice'", "url", "<html>"]),
        ("publish", 429, "", ["less often"]),
        ("publish", 429, {"error": "over_message_quota"}, ["used up"]),
        ("publish", 503, {"error": "internal_error"}, ["try again"]),
        ("usage", 302, "", ["302"]),
    ],
)
def test_refusals_say_what_to_do(
    scripted: ScriptedHttp,
    control: ControlPlane,
    call: str,
    status: int,
    body: Any,
    words: list[str],
) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    scripted.script = [(status, {}, text.encode())]
    with pytest.raises(ControlPlaneError) as caught:
        CALLS[call](control)
    error = caught.value
    code = body["error"] if isinstance(body, dict) else None
    assert (error.status, error.code, error.sent) == (status, code, True)
    for word in words:
        assert word in str(error)
    assert "HUSHHUSH" not in shown(error)
    assert error.__cause__ is error.__context__ is None


def test_a_server_that_asks_to_wait(scripted: ScriptedHttp, control: ControlPlane) -> None:
    scripted.script = [(429, {"Retry-After": "7"}, b"")]
    with pytest.raises(ControlPlaneError, match="asks to wait 7 s") as caught:
        control.publish("room", 1)
    assert caught.value.retry_after == 7


ANSWERS: dict[str, Any] = {
    "mint_token": {"token": "t", "expiresAt": 1},
    "peers": {"peers": []},
    "disconnect": {"closed": 0},
    "usage": {
        "appId": "app",
        **dict.fromkeys(("concurrentNow", "peakConcurrent", "messagesUsed"), 1),
        **dict.fromkeys(("overageMessages", "overageConnections"), 0),
        "plan": {
            **dict.fromkeys(("maxConcurrentConnections", "maxMessagesPerPeriod"), 100),
            **dict.fromkeys(("overagesAllowed", "overagesEnabled"), False),
        },
    },
}


@pytest.mark.parametrize("call", ANSWERS)
def test_calls_that_do_no_harm_twice_are_tried_again(
    scripted: ScriptedHttp, control: ControlPlane, call: str
) -> None:
    body = json.dumps(ANSWERS[call]).encode()
    scripted.script = [(503, {}, b"{}"), (0, {}, b""), (429, {}, b""), (200, {}, body)]
    CALLS[call](control)
    assert len(scripted.asked) == 4


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_publish_is_not(scripted: ScriptedHttp, control: ControlPlane, status: int) -> None:
    scripted.script = [(status, {}, b"")]
    with pytest.raises(ControlPlaneError):
        control.publish("room", 1)
    assert len(scripted.asked) == 1


def test_a_publish_whose_answer_is_lost(scripted: ScriptedHttp, control: ControlPlane) -> None:
    scripted.script = [(0, {}, b"")]
    with pytest.raises(ControlPlaneError, match="may have been carried out") as caught:
        control.publish("room", 1)
    assert caught.value.sent
    assert caught.value.status is None
    assert len(scripted.asked) == 1


@pytest.mark.parametrize("call", CALLS)
def test_nobody_there(scripted: ScriptedHttp, call: str) -> None:
    control = ControlPlane(KEY_ID, SECRET, url="http://127.0.0.1:9")
    with pytest.raises(ControlPlaneError, match="connection refused") as caught:
        CALLS[call](control)
    assert not caught.value.sent
    assert "http://127.0.0.1:9" in str(caught.value)
    assert "HUSHHUSH" not in shown(caught.value)
    assert isinstance(caught.value.__cause__, ScrubbedError)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("call", sorted(set(CALLS) - {"publish"}))
@pytest.mark.parametrize("body", [b"", b"<html>HUSHHUSH</html>", b"[]", b'{"token": 1}'])
def test_malformed_answers(
    scripted: ScriptedHttp, control: ControlPlane, call: str, body: bytes
) -> None:
    scripted.script = [(200, {}, body)]
    with pytest.raises(ControlPlaneError, match="not what the service sends") as caught:
        CALLS[call](control)
    assert caught.value.status == 200
    assert "HUSHHUSH" not in shown(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


# --- the thread boundary ----------------------------------------------------------------


def test_deadlines(scripted: ScriptedHttp, control: ControlPlane) -> None:
    scripted.wait = threading.Event()
    scripted.script = [(200, {}, b"")] * 5
    expiry = expired(
        lambda timeout: control.publish("room", 1, timeout=timeout),
        lambda error: error.sent,
        first=0.2,
    )
    assert "publish to 'room'" in str(expiry)
    assert expiry.sent
    started = time.monotonic()
    with pytest.raises(MeteredTimeoutError, match="publish to 'room'"):
        control.publish("room", 1, timeout=0)
    assert time.monotonic() - started < 15
    with pytest.raises(MeteredTimeoutError, match="usage"):
        ControlPlane(KEY_ID, SECRET, url=scripted.origin, timeout=0.1).usage()


def test_a_closed_one_says_so(control: ControlPlane) -> None:
    control.close()
    control.close()
    with pytest.raises(ClosedError, match="usage"):
        control.usage()


def test_many_threads(scripted: ScriptedHttp, control: ControlPlane) -> None:
    scripted.script = [(200, {}, b'{"closed": 1}')] * 200
    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(lambda n: control.disconnect(f"peer-{n}"), range(200))) == 200
    assert len({asked.path for asked in scripted.asked}) == 200


def test_inside_a_running_loop(scripted: ScriptedHttp, control: ControlPlane) -> None:
    scripted.script = [(200, {}, b'{"closed": 1}')] * 2

    async def main() -> int:
        return control.disconnect("a") + await asyncio.to_thread(control.disconnect, "b")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # once per process, and told elsewhere
        assert asyncio.run(main()) == 2


def test_from_a_callback(cloud: LocalCloud, served: ControlPlane) -> None:
    with SignallingClient(**cloud.token_options("alice")) as client:
        client.on(Message, lambda message: served.publish("answers", served.peers("questions")))
        answers = client.subscribe("answers")
        client.subscribe("questions")
        served.publish("questions", "who is there?")
        assert answers.get(timeout=20).data == {"alice": None}


def test_not_on_the_loop_thread(control: ControlPlane) -> None:
    told: queue.Queue[BaseException] = queue.Queue()

    def call() -> None:
        try:
            control.usage()
        except WrongThreadError as error:
            told.put(error)

    engines.current().post(call)
    assert "usage" in str(told.get(timeout=20))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_one_made_before_a_fork_works_on_both_sides(scripted: ScriptedHttp) -> None:
    scripted.script = [(200, {}, b'{"closed": 1}')] * 3
    source = f"""
import os
from metered_sync import ControlPlane
control = ControlPlane({KEY_ID!r}, {SECRET!r}, url={scripted.origin!r})
assert control.disconnect("parent") == 1
child = os.fork()
if child == 0:
    os._exit(control.disconnect("child") - 1)
assert os.waitpid(child, 0)[1] == 0
assert control.disconnect("parent") == 1
print("both")
"""
    done = run_script(source, PYTHONWARNINGS="ignore::DeprecationWarning")  # of fork() as such
    assert (done.stdout, done.stderr) == ("both\n", "")
    first, second, third = (asked.port for asked in scripted.asked)
    assert first == third != second  # the child has a connection of its own


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
def test_ctrl_c(scripted: ScriptedHttp) -> None:
    scripted.wait = threading.Event()
    scripted.script = [(200, {}, b"")]
    source = f"""
import sys
from metered_sync import ControlPlane
with ControlPlane({KEY_ID!r}, {SECRET!r}, url={scripted.origin!r}) as control:
    print("ready", flush=True)
    try:
        control.publish("room", 1, timeout=60)
    except KeyboardInterrupt:
        print("interrupted")
        sys.exit(7)
"""
    status, lines, err, seconds = interrupt(source)
    assert (status, lines, err) == (7, ["interrupted"], "")
    assert seconds < 20  # (a machine may be busy; a hang takes longer)


@pytest.mark.parametrize("moment", ["while the engine starts", "while it waits"])
def test_a_script_that_ends_during_a_call_ends(scripted: ScriptedHttp, moment: str) -> None:
    scripted.wait = threading.Event()
    scripted.script = [(200, {}, b"")]
    source = f"""
import sys, threading, time
from metered_sync import ControlPlane, MeteredError
control = ControlPlane({KEY_ID!r}, {SECRET!r}, url={scripted.origin!r})
def publish():
    try:
        control.publish("room", 1, timeout=60)
    except MeteredError:  # the script ends
        pass
threading.Thread(target=publish, daemon=True).start()
while sys.argv[1] == "while it waits" and "worker" not in str(threading.enumerate()):
    time.sleep(0.001)
print("started")
"""
    started = time.monotonic()
    done = run_script(source, moment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "started\n", "")
    assert time.monotonic() - started < 10


def test_it_needs_no_closing(scripted: ScriptedHttp, control: ControlPlane) -> None:
    scripted.script = [(200, {}, b'{"closed": 1}')]
    source = f"""
import gc
from metered_sync import ControlPlane
print(ControlPlane({KEY_ID!r}, {SECRET!r}, url={scripted.origin!r}).disconnect("x"))
gc.collect()
"""
    done = run_script(source, PYTHONWARNINGS="error")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts files in /proc")
def test_many_rounds_leave_nothing(scripted: ScriptedHttp) -> None:
    def files() -> int:
        return len(os.listdir("/proc/self/fd"))

    def rounds(count: int) -> None:
        scripted.script = [(200, {}, b'{"closed": 1}')] * count
        for _ in range(count):
            with ControlPlane(KEY_ID, SECRET, url=scripted.origin) as control:
                assert control.disconnect("x") == 1

    rounds(5)
    before, threads = files(), threading.active_count()
    rounds(200)
    wait_until(lambda: files() <= before, what="files are closed")
    assert threading.active_count() <= threads + 3  # (workers, which end when they are idle)


def test_it_is_not_pickled_with_its_secret(control: ControlPlane) -> None:
    with pytest.raises(TypeError, match="make a new one") as caught:
        pickle.dumps(control)
    assert "HUSHHUSH" not in shown(caught.value)


def test_no_secret_is_shown(
    scripted: ScriptedHttp, control: ControlPlane, log: io.StringIO
) -> None:
    echo = f'{{"error": "unauthorized", "message": "{KEY_ID}:{SECRET} is not known"}}'.encode()
    scripted.script = [(503, {}, echo), (401, {}, echo), (200, {}, b'{"token": "eyJ.x.y"}')]
    output = shown(control)
    for _ in range(2):
        with pytest.raises(ControlPlaneError) as caught:
            control.mint_token(peer_id="alice")
        output += shown(caught.value)
    output += log.getvalue()
    assert "POST /v1/tokens" in output
    wait_until(lambda: len(scripted.asked) == 3)
    for secret in ("HUSHHUSH", "eyJ"):
        assert secret not in output
