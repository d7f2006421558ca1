"""Rule 10 in tracebacks: no local variable of any frame of an error that leaves us is a secret.

Django's debug page, crash reporters, ``pytest -l``, rich and IPython show such variables.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

import pytest

from metered_sync import (
    ControlPlane,
    MeteredPeer,
    SfuApi,
    SfuClient,
    SignallingClient,
    Token,
    TurnApi,
    from_rtsp,
    mint_token,
)
from metered_sync.local import LocalCloud
from tests.support.scripted_http import ScriptedHttp, serving
from tests.support.scripted_service import ScriptedServer, mute
from tests.support.seen import frames_of

MARK = "HUSHHUSH"
"""Stands in every secret of these tests, and must stand in no frame."""
KEY, KEY_SECRET = f"pk_live_{MARK}", f"sk_secret_{MARK}"
TOKEN = f"eyJ{MARK}.{MARK}.{MARK}"
RTSP = f"rtsp://user:{MARK}@"
OFFER = {"type": "offer", "sdp": f"v=0\r\na=ice-pwd:{MARK}\r\nm=application 9 a 0\r\n"}


def caught(call: Callable[[], object]) -> str:
    """Return all that is seen of the error of a call."""
    with pytest.raises(Exception) as failed:
        call()
    return frames_of(failed.value)


# --- arguments ------------------------------------------------------------------------

MESSAGING: list[dict[str, Any]] = [
    {"url": "ftp://x"},
    {"timeout": -1},
    {"reconnect": 7},
    {"rate_limit": "x"},
    {"inactivity_timeout": 0},
    {"token_provider_timeout": "x"},
    {"auto_resubscribe": "perhaps", "rate_limit": 7},
    {"unknown": 1},
]
MAKERS: dict[str, tuple[Callable[..., object], list[dict[str, Any]]]] = {
    "client, key": (lambda **more: SignallingClient(api_key=KEY, **more), MESSAGING),
    "client, token": (lambda **more: SignallingClient(token_provider=TOKEN, **more), MESSAGING),
    "peer": (
        lambda **more: MeteredPeer(
            api_key=KEY,
            **{
                "ice_servers": [{"urls": "turn:h", "username": MARK, "credential": MARK}],
                **more,
            },
        ),
        [
            *MESSAGING,
            {"auto_resubscribe": False},
            {"gather_timeout": -1},
            {"max_pixels": 0},
            {"ice_servers": [{"urls": "turn:h", "username": MARK, "credential": 7}]},
            {"ice_servers": [7]},
        ],
    ),
    "sfu": (
        lambda **more: SfuClient(
            app_id="a",
            secret=MARK,
            **{
                "ice_servers": [{"urls": "turn:h", "username": MARK, "credential": MARK}],
                **more,
            },
        ),
        [
            {"url": "ftp://x"},
            {"timeout": "x"},
            {"metadata": 7},
            {"recover": "x"},
            {"gather_timeout": None},
            {"max_pixels": -1},
            {"ice_servers": [MARK]},
            {"unknown": 1},
        ],
    ),
    "sfu api": (
        lambda **more: SfuApi("a", MARK, **more),
        [{"url": "ftp://x"}, {"url": f"https://u:{MARK}@h"}, {"timeout": -1}, {"unknown": 1}],
    ),
    "control plane": (
        lambda **more: ControlPlane("sk_id_x", KEY_SECRET, **more),
        [{"url": "ftp://x"}, {"timeout": -1}, {"unknown": 1}],
    ),
    "turn": (
        lambda **more: TurnApi(**{"app": "app", "api_key": MARK, "secret_key": MARK, **more}),
        [{"app": "no name"}, {"url": "ftp://x"}, {"timeout": -1}, {"unknown": 1}],
    ),
    "token": (
        lambda **more: mint_token("sk_id_x", KEY_SECRET, **{"peer_id": "x", **more}),
        [
            {"peer_id": "é"},
            {"peer_id": 7},
            {"channels": "one"},
            {"channels": [""]},
            {"channels": [7]},
            {"permissions": ["fly"]},
            {"ttl": -1},
            {"ttl": "x"},
            {"metadata": {"x": "y" * 9000}},
            {"metadata": {"x": {1, 2}}},
            {"peer_metadata": 7},
            {"unknown": 1},
        ],
    ),
    "rtsp": (
        lambda **more: from_rtsp(**{"url": f"{RTSP}127.0.0.1:9/x", **more}),
        [
            {},
            {"transport": "pigeon"},
            {"timeout": -1},
            {"url": f"http://user:{MARK}@h/"},
            {"url": f"{RTSP}h h/"},
            {"url": f"{RTSP}/"},
            {"url": f"{RTSP}h:x/"},
            {"url": {"url": MARK}},
            {"unknown": 1},
        ],
    ),
    "cloud": (
        lambda **more: LocalCloud(
            turn_secret=MARK,
            **{
                "ice_servers": [{"urls": "turn:h", "username": MARK, "credential": MARK}],
                **more,
            },
        ),
        [
            {"host": "example.org"},
            {"port": -1},
            {"permissions": ["fly"]},
            {"permissions": "fly"},
            {"max_messages": "x"},
            {"timeout": -1},
            {"ice_servers": [{"urls": "turn:h", "username": MARK, "credential": 7}]},
            {"unknown": 1},
        ],
    ),
}


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        pytest.param(make, wrong, id=f"{name} {','.join(wrong)}")
        for name, (make, mistakes) in MAKERS.items()
        for wrong in mistakes
    ],
)
def test_a_right_secret_beside_a_wrong_argument(
    make: Callable[..., object], wrong: dict[str, Any]
) -> None:
    assert MARK not in caught(lambda: make(**wrong))


# --- connecting -----------------------------------------------------------------------


def give_token() -> str:
    return TOKEN


def give_object() -> Token:
    return Token(TOKEN, 0)


def give_nonsense() -> Any:
    return {"token": MARK}


CREDENTIALS: dict[str, dict[str, Any]] = {
    "key": {"api_key": KEY},
    "token": {"token_provider": TOKEN},
    "provider": {"token_provider": give_token},
    "provider of tokens": {"token_provider": give_object},
}


@pytest.fixture(scope="module")
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.mark.parametrize(
    ("credential", "call"), [*((one, "connect") for one in CREDENTIALS), ("key", "join")]
)
@pytest.mark.parametrize(
    "server", ["nobody", "refuses", "closes", "silent", "nonsense", "no tls", "redirects"]
)
def test_connections_that_fail(credential: str, call: str, server: str, closed_port: int) -> None:
    with ExitStack() as stack:
        if server == "nobody":
            url = f"ws://127.0.0.1:{closed_port}"
        elif server in ("nonsense", "redirects", "no tls"):
            http: ScriptedHttp = stack.enter_context(serving())
            answers = {
                "nonsense": (200, {}, KEY.encode()),
                "redirects": (302, {"Location": f"ws://127.0.0.1:{closed_port}/x?key={KEY}"}, b""),
            }
            http.script += [answers.get(server, (0, {}, b""))] * 5
            url = http.origin.replace("http", "wss" if server == "no tls" else "ws")
        else:
            scripted = ScriptedServer(
                status=lambda number: 401 if server == "refuses" else None,
                welcome=lambda number: None,
            )
            url = stack.enter_context(scripted).url
        options = {
            "url": url,
            "timeout": 0.3 if server == "silent" else 10,
            **CREDENTIALS[credential],
        }
        if call == "connect":
            client = stack.enter_context(closing(SignallingClient(**options)))
            act: Callable[[], object] = client.connect
        else:
            peer = stack.enter_context(closing(MeteredPeer(**options)))

            def act() -> None:
                peer.join("room")

        if server == "closes":
            scripted.welcome = lambda number: {"type": "error", "code": "x", "message": TOKEN}
            timer = _closer(scripted)
            stack.callback(timer.join, 10)
        assert MARK not in caught(act)


def _closer(server: ScriptedServer) -> Any:
    thread = threading.Thread(target=lambda: server.accept().close(4001, f"bad {TOKEN}"))
    thread.start()
    return thread


def test_what_a_provider_returns_by_mistake() -> None:
    client = SignallingClient(token_provider=give_nonsense, url="ws://127.0.0.1:9")
    assert MARK not in caught(client.connect)
    client.close()


def test_a_connection_that_ends_for_good() -> None:
    with ScriptedServer() as server, SignallingClient(api_key=KEY, url=server.url) as client:
        server.accept().close(4001, f"the key {KEY} is not valid")
        inbox = client.events()
        assert MARK not in caught(lambda: [inbox.get(timeout=20) for _ in range(100)])
        assert MARK not in caught(lambda: client.publish("c", 1))


def test_calls_that_time_out() -> None:
    with ScriptedServer(mute) as server, SignallingClient(api_key=KEY, url=server.url) as client:
        assert MARK not in caught(lambda: client.publish("c", 1, timeout=0.05))
        assert MARK not in caught(lambda: client.subscribe("c", timeout=0.05))


# --- REST -----------------------------------------------------------------------------

REST: dict[str, tuple[Callable[[str], Any], Callable[[Any], object]]] = {
    "control, token": (
        lambda url: ControlPlane("sk_id_x", KEY_SECRET, url=url, timeout=0.25),
        lambda api: api.mint_token(peer_id="x", metadata={"secret": "no"}),
    ),
    "control, publish": (
        lambda url: ControlPlane("sk_id_x", KEY_SECRET, url=url, timeout=0.25),
        lambda api: api.publish("c", 1),
    ),
    "turn, servers": (
        lambda url: TurnApi("app", api_key=MARK, url=url, timeout=0.25),
        lambda api: api.ice_servers(),
    ),
    "turn, credential": (
        lambda url: TurnApi("app", secret_key=MARK, url=url, timeout=0.25),
        lambda api: api.create_credential(),
    ),
    "turn, credentials": (
        lambda url: TurnApi("app", secret_key=MARK, url=url, timeout=0.25),
        lambda api: api.credentials(),
    ),
    "sfu api, create": (
        lambda url: SfuApi("app", MARK, url, timeout=0.25),
        lambda api: api.create_session(OFFER),
    ),
    "sfu api, publish": (
        lambda url: SfuApi("app", MARK, url, timeout=0.25),
        lambda api: api.publish_tracks("s", [{"trackId": "t", "mid": "0"}], OFFER),
    ),
    "sfu api, renegotiate": (
        lambda url: SfuApi("app", MARK, url, timeout=0.25),
        lambda api: api.renegotiate("s", OFFER),
    ),
    "sfu api, close": (
        lambda url: SfuApi("app", MARK, url, timeout=0.25),
        lambda api: api.close_tracks("s", ["t"], OFFER),
    ),
    "sfu api, sessions": (
        lambda url: SfuApi("app", MARK, url, timeout=0.25),
        lambda api: api.sessions(),
    ),
    "sfu": (
        lambda url: SfuClient(app_id="app", secret=MARK, url=url, timeout=0.6),
        lambda api: api.connect(),
    ),
}
ANSWERS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "refused": (401, {}, json.dumps({"error": f"no {KEY_SECRET}", "code": KEY_SECRET}).encode()),
    "not found": (404, {}, b""),
    "in trouble": (500, {"Retry-After": "60"}, f"Bearer {MARK} ?secretKey={MARK}".encode()),
    "cut": (0, {}, b""),
    "nonsense": (200, {}, b"<html>"),
    "other": (200, {}, json.dumps([{"password": 1, "urls": 7}]).encode()),
    "redirect": (302, {"Location": f"http://127.0.0.1:9/?secretKey={MARK}"}, b""),
    "bad description": (
        200,
        {},
        json.dumps(
            {"sessionId": "s", "sessionDescription": {"type": "answer", "sdp": OFFER["sdp"]}}
        ).encode(),
    ),
    "secrets": (
        200,
        {},
        json.dumps(
            {"username": MARK, "password": MARK, "apiKey": 7, "token": TOKEN, "expires_at": "x"}
        ).encode(),
    ),
}


@pytest.mark.parametrize("answer", [*ANSWERS, "late", "nobody"])
@pytest.mark.parametrize("call", REST)
def test_calls_that_fail(call: str, answer: str, closed_port: int) -> None:
    make, act = REST[call]
    with serving() as http:
        if answer == "late":
            http.wait = threading.Event()
        http.script += [ANSWERS.get(answer, (0, {}, b""))] * 10
        url = f"http://127.0.0.1:{closed_port}" if answer == "nobody" else http.origin
        with make(url) if call != "sfu" else closing(make(url)) as api:
            try:
                act(api)
            except Exception as error:
                seen = frames_of(error)
            else:  # some are satisfied with any JSON
                seen = ""
                assert ANSWERS[answer][0] == 200
        assert MARK not in seen


# --- cameras --------------------------------------------------------------------------


def test_cameras_that_do_not_answer(closed_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert MARK not in caught(lambda: from_rtsp(f"{RTSP}127.0.0.1:{port}/x", timeout=0.2))
    assert MARK not in caught(lambda: from_rtsp(f"{RTSP}127.0.0.1:{closed_port}/x?pw={MARK}"))
    assert MARK not in caught(lambda: from_rtsp(f"{RTSP}nowhere.invalid/x"))
