"""Test what the gate lets through, and every way around it that was thought of."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from metered_sync import SfuApi, SfuGate, mint_token
from metered_sync.gate import gate as gate_module
from metered_sync.local import LocalCloud
from metered_sync.wire.sfu import plain_session_id
from tests.conftest import wait_until

OFFER_HEAD = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n"
    "a=msid-semantic:WMS *\r\n"
)
OFFER_SECTION = (
    "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=rtcp-mux\r\na=mid:0\r\n"
    "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=setup:actpass\r\n"
    "a=fingerprint:sha-256 " + ":".join(["AB"] * 32) + "\r\na=rtpmap:111 opus/48000/2\r\n"
)
MSID = "a=msid:stream track\r\na=ssrc:1234 cname:x\r\n"


def offer(direction: str = "recvonly", extra: str = "") -> dict[str, str]:
    line = f"a={direction}\r\n" if direction else ""
    return {"type": "offer", "sdp": OFFER_HEAD + OFFER_SECTION + line + extra}


class Caller:
    """Calls to a gate with one token."""

    def __init__(self, gate: SfuGate, token: str | None) -> None:
        self._gate = gate
        self._token = token

    def __call__(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if self._token is not None:
            given.setdefault("Authorization", f"Bearer {self._token}")
        raw = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        status, answered, content = self._gate.handle(method, path, given, raw)
        return status, answered, json.loads(content) if content else None

    def new(self) -> str:
        """Make a session, and return its id as the gate tells it."""
        status, _, made = self("POST", "/session/new", {"sessionDescription": offer()})
        assert status == 200
        return str(made["sessionId"])


@pytest.fixture(scope="module")
def gate(shared_cloud: LocalCloud) -> Iterator[SfuGate]:
    gate = SfuGate(
        shared_cloud.sfu_app_id,
        shared_cloud.sfu_secret,
        {shared_cloud.key_id: shared_cloud.key_secret},
        url=shared_cloud.http_url,
        origins=["https://app.example"],
    )
    yield gate
    gate.close()


@pytest.fixture
def call(gate: SfuGate, shared_cloud: LocalCloud) -> Any:
    """Return a function that makes callers, by what is claimed for them."""
    number = iter(range(1000))

    def caller(peer_id: str = "", **claims: Any) -> Caller:
        name = peer_id or f"peer-{next(number)}-{time.monotonic_ns()}"
        token = mint_token(shared_cloud.key_id, shared_cloud.key_secret, peer_id=name, **claims)
        return Caller(gate, token)

    return caller


def test_whoever_has_made_a_session_may_change_it(call: Any) -> None:
    ann = call("ann")
    session = ann.new()
    assert plain_session_id(session) != session
    publish = {
        "tracks": [{"trackId": "track", "mid": "0"}],
        "sessionDescription": offer("sendonly", MSID),
    }
    status, _, published = ann("POST", f"/session/{session}/track/publish", publish)
    assert status == 200
    assert published["sessionDescription"]["type"] == "answer"
    close = {"tracks": [{"trackId": "track"}], "sessionDescription": offer("inactive")}
    assert ann("POST", f"/session/{session}/track/close", close)[0] == 200
    # Anybody who knows a session may read its tracks, by either form of its id.
    for name in session, plain_session_id(session):
        assert call("bob")("GET", f"/session/{name}/tracks")[::2] == (200, [])


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer x", "Bearer a.b.c", "Token {}", "bearer:{}"],
)
def test_without_a_token(gate: SfuGate, call: Any, authorization: str) -> None:
    good = call()._token
    answer = Caller(gate, None)(
        "GET", "/session/x/tracks", Authorization=authorization.format(good)
    )
    assert answer[0] == 401
    assert answer[1]["WWW-Authenticate"] == "Bearer"


def test_tokens_that_are_not_ours(gate: SfuGate, shared_cloud: LocalCloud) -> None:
    import jwt

    key, secret = shared_cloud.key_id, shared_cloud.key_secret
    other = "sk_secret_" + "x" * 40
    now = int(time.time())
    claims = {"sub": "eve", "iat": now, "exp": now + 60}
    tokens = [
        mint_token(key, other, peer_id="eve"),
        mint_token("sk_id_unknown", secret, peer_id="eve"),
        mint_token(key, secret, peer_id="eve", ttl=1e-3),
        jwt.encode(claims, "", algorithm="none", headers={"kid": key}),
        jwt.encode(claims, secret, algorithm="HS384", headers={"kid": key}),
        jwt.encode(claims, secret, algorithm="HS256"),  # which names no key
        jwt.encode({"sub": "eve"}, secret, algorithm="HS256", headers={"kid": key}),
        jwt.encode({"exp": now + 60}, secret, algorithm="HS256", headers={"kid": key}),
        jwt.encode(claims | {"exp": "soon"}, secret, algorithm="HS256", headers={"kid": key}),
        jwt.encode(claims | {"sub": ["eve"]}, secret, algorithm="HS256", headers={"kid": key}),
        jwt.encode(claims | {"permissions": 7}, secret, algorithm="HS256", headers={"kid": key}),
    ]
    time.sleep(0.01)
    for token in tokens:
        status, _, body = Caller(gate, token)("GET", "/session/x/tracks")
        assert (status, body["error"]) == (401, "invalid_token"), token


def test_publishing_needs_the_permission(call: Any) -> None:
    viewer = call("viewer", permissions=["subscribe", "presence"])
    session = viewer.new()
    publish = {
        "tracks": [{"trackId": "t", "mid": "0"}],
        "sessionDescription": offer("sendonly", MSID),
    }
    assert viewer("POST", f"/session/{session}/track/publish", publish)[0] == 403
    sends = offer("sendonly", MSID)
    calls = [
        ("POST", "/session/new", {"sessionDescription": sends}),
        ("POST", f"/session/{session}/track/close", {"tracks": [], "sessionDescription": sends}),
        (
            "PUT",
            f"/session/{session}/renegotiate",
            {"sessionDescription": {**sends, "type": "answer"}},
        ),
        ("PUT", f"/session/{session}/renegotiate", {"sessionDescription": sends}),
    ]
    for method, path, body in calls:
        status, _, answered = viewer(method, path, body)
        assert (status, answered["error"]) == (403, "publish_not_permitted"), path


@pytest.mark.parametrize("direction", ["sendrecv", ""])
def test_what_may_send_reaches_the_sfu_as_receiving(
    call: Any, shared_cloud: LocalCloud, direction: str
) -> None:
    viewer = call(permissions=["subscribe"])
    body = {"sessionDescription": offer(direction, MSID)}
    status, _, made = viewer("POST", "/session/new", body)
    assert status == 200
    answered = made["sessionDescription"]["sdp"]
    assert "a=recvonly" not in answered  # the SFU would receive
    assert "a=sendrecv" not in answered
    # With the permission the same offer publishes.
    assert "a=recvonly" in call()("POST", "/session/new", body)[2]["sessionDescription"]["sdp"]


def test_tokens_without_permissions_have_the_default_ones(shared_cloud: LocalCloud) -> None:
    careful = SfuGate(
        shared_cloud.sfu_app_id,
        shared_cloud.sfu_secret,
        {shared_cloud.key_id: shared_cloud.key_secret},
        url=shared_cloud.http_url,
        default_permissions=["subscribe"],
    )
    token = mint_token(shared_cloud.key_id, shared_cloud.key_secret, peer_id="x")
    body = {"sessionDescription": offer("sendonly", MSID)}
    assert Caller(careful, token)("POST", "/session/new", body)[0] == 403


def test_sessions_of_others(call: Any) -> None:
    ann, eve = call("ann"), call("eve")
    session = ann.new()
    theirs = eve.new()
    subscribe = {"tracks": [{"remoteSessionId": "x", "remoteTrackId": "y"}]}
    ticket = session[len(plain_session_id(session)) :]
    for name in (
        session,  # another's ticket
        plain_session_id(session),  # guessed
        plain_session_id(session) + theirs[len(plain_session_id(theirs)) :],
        plain_session_id(theirs) + ticket,
        session[:-1] + ("A" if session[-1] != "A" else "B"),
        session + "~",
        "x",
    ):
        for method, call_, body in (
            ("POST", "track/subscribe", subscribe),
            ("PUT", "renegotiate", {"sessionDescription": offer()}),
            ("POST", "track/publish", {"tracks": [], "sessionDescription": offer()}),
            ("POST", "track/close", {"tracks": [], "sessionDescription": offer()}),
        ):
            status, _, answered = eve(method, f"/session/{name}/{call_}", body)
            assert (status, answered["error"]) == (403, "not_your_session"), (name, call_)


def test_a_ticket_lives_as_long_as_its_token(call: Any) -> None:
    session = call("ann", ttl=2.2).new()
    again = call("ann")  # the same peer, with a new token
    subscribe = {"tracks": [{"remoteSessionId": "x", "remoteTrackId": "y"}]}
    path = f"/session/{session}/track/subscribe"
    assert again("POST", path, subscribe)[0] == 404
    expires_at = int(session.split("~")[1])
    wait_until(lambda: time.time() >= expires_at, timeout=20)
    status, _, answered = again("POST", path, subscribe)
    assert (status, answered["error"]) == (403, "ticket_expired")


def test_nobody_lists_the_sessions(call: Any) -> None:
    assert call()("GET", "/sessions")[0] == 403


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "", 404), ("GET", "/", 404), ("GET", "/sessions/", 404), ("GET", "//sessions", 404),
        ("GET", "/session/../sessions", 404), ("GET", "/session/x/../../sessions", 404),
        ("GET", "/session/%2e%2e/tracks", 404), ("GET", "/session/x%2Ftracks", 404),
        ("GET", "/session/x/tracks?y", 404), ("GET", "/session/x/tracks\n", 404),
        ("GET", "/session/\u00e9/tracks", 404), ("GET", "/session/" + "x" * 3000 + "/tracks", 404),
        ("GET", "/api/sfu/app/sessions", 404), ("POST", "/sessions", 405),
        ("DELETE", "/session/new", 405), ("GET", "/session/new", 405),
        ("post", "/session/new", 405), ("HEAD", "/session/x/tracks", 405),
    ],
)  # fmt: skip
def test_paths(call: Any, method: str, path: str, status: int) -> None:
    assert call()(method, path)[0] == status


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"[]", b'"x"', b"{}", b"\xff\xfe", b"[" * 100_000,
        {"sessionDescription": None}, {"sessionDescription": {"type": "offer"}},
        {"sessionDescription": {"type": "pranswer", "sdp": "v=0"}},
        {"sessionDescription": {"type": "offer", "sdp": "no"}},
        {"sessionDescription": {"type": "offer", "sdp": 7}},
        b'{"sessionDescription": {"type": "offer", "sdp": "v=0\\r\\n"}, "metadata": "\\ud800"}',
    ],
)  # fmt: skip
def test_bodies_of_no_use(call: Any, body: Any) -> None:
    assert call()("POST", "/session/new", body)[0] == 400


def test_bodies_that_are_too_large(call: Any) -> None:
    caller = call()
    assert caller("POST", "/session/new", b" " * (gate_module.MAX_BODY + 1))[0] == 413
    many = offer(extra="a=x\r\n" * 20_000)
    assert caller("POST", "/session/new", {"sessionDescription": many})[0] == 400


def test_what_the_gate_does_not_know_goes_no_further(call: Any, shared_cloud: LocalCloud) -> None:
    body = {"sessionDescription": offer(), "metadata": "mine", "appId": "other", "x": "y" * 100}
    session = plain_session_id(call()("POST", "/session/new", body)[2]["sessionId"])
    with SfuApi(**shared_cloud.sfu_options()) as api:
        (listed,) = (one for one in api.sessions() if one["sessionId"] == session)
    assert listed["metadata"] == "mine"


def test_pages_of_other_origins(call: Any) -> None:
    caller = call()
    path = "/session/x/tracks"
    status, headers, _ = caller("OPTIONS", path, Origin="https://app.example")
    assert status == 204
    assert headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert "Authorization" in headers["Access-Control-Allow-Headers"]
    status, headers, _ = caller("GET", path, origin="https://app.example")
    assert (status, headers["Access-Control-Allow-Origin"]) == (404, "https://app.example")
    assert caller("GET", path, Origin="https://my.app", Host="my.app")[0] == 404  # its own page
    for origin in "https://evil.example", "null", "https://app.example.evil", "http://app.example":
        for method in "OPTIONS", "GET":
            status, headers, _ = caller(method, path, Origin=origin, Host="my.app")
            assert status == 403
            assert "Access-Control-Allow-Origin" not in headers


def test_calls_are_counted_for_each_peer(call: Any) -> None:
    eve = call("eve-in-a-hurry")
    for _ in range(int(gate_module.CALL_BURST) + 5):
        status, headers, _ = eve("GET", "/sessions")
        if status == 429:
            break
    assert status == 429
    assert int(headers["Retry-After"]) >= 1
    assert call()("GET", "/sessions")[0] == 403  # others have calls of their own


def test_answers_of_the_sfu(call: Any) -> None:
    caller = call()
    assert caller("GET", "/session/unknown/tracks")[::2] == (
        404,
        {"error": "not_found", "message": "the SFU refuses the call (404)"},
    )
    session = caller.new()
    missing = {"tracks": [{"remoteSessionId": session, "remoteTrackId": "missing"}]}
    assert caller("POST", f"/session/{session}/track/subscribe", missing)[0] == 404


def test_a_gate_that_is_refused_itself_says_nothing_of_why(
    shared_cloud: LocalCloud, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "wrong-" + "s" * 30
    keys = {shared_cloud.key_id: shared_cloud.key_secret}
    token = mint_token(shared_cloud.key_id, shared_cloud.key_secret, peer_id="x")
    wrong = SfuGate(shared_cloud.sfu_app_id, secret, keys, url=shared_cloud.http_url)
    away = SfuGate(shared_cloud.sfu_app_id, secret, keys, url="http://127.0.0.1:9", timeout=2)
    body = {"sessionDescription": offer()}
    for gate, code in (wrong, "gate_refused"), (away, "sfu_unreachable"):
        status, _, answered = Caller(gate, token)("POST", "/session/new", body)
        assert (status, answered["error"]) == (502, code)
        assert secret not in repr(gate) + json.dumps(answered) + caplog.text


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"keys": None}, "needs keys="),
        ({"keys": {}}, "needs keys="),
        ({"keys": {"sk_secret_x": "sk_id_x"}}, "swapped"),
        ({"secret": ""}, "needs secret"),
        ({"origins": "https://x"}, "origins"),
        ({"origins": ["https://x/path"]}, "scheme and host"),
        ({"default_permissions": ["fly"]}, "known are"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], problem: str) -> None:
    given = {"app_id": "app", "secret": "s" * 20, "keys": {"sk_id_x": "sk_secret_x"}} | arguments
    with pytest.raises((ValueError, TypeError), match=problem):
        SfuGate(**given)
