"""Test the bodies of the control plane's calls in both directions, and what each refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from metered_sync.wire import control
from metered_sync.wire.control import MessageRequest, Plan, Token, TokenRequest, Usage
from metered_sync.wire.fields import FieldError

USAGE = {
    "appId": "app_1",
    "periodStartUnix": 1_900_000_000,
    "periodEndUnix": None,
    "concurrentNow": 1,
    "peakConcurrent": 2,
    "messagesUsed": 3,
    "overageMessages": 4,
    "overageConnections": 5,
    "plan": {
        "name": None,
        "maxConcurrentConnections": 100,
        "maxMessagesPerPeriod": 100_000,
        "overagesAllowed": False,
        "overagesEnabled": True,
    },
}


def test_paths_hold_names_percent_encoded() -> None:
    assert control.peers_path("app/room é") == "/v1/channels/app%2Froom%20%C3%A9/peers"
    assert control.publish_path("a?b#c") == "/v1/channels/a%3Fb%23c/publish"
    assert control.peer_path("../x") == "/v1/peers/..%2Fx"


@pytest.mark.parametrize("path", [control.peers_path, control.publish_path, control.peer_path])
@pytest.mark.parametrize("name", [".", ".."])
def test_names_that_would_change_the_path(path: Callable[[str], str], name: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        path(name)
    assert path(name + ".x").count("/") == path("x").count("/")


@pytest.mark.parametrize(
    "request_",
    [
        TokenRequest("alice"),
        TokenRequest("alice", ("a/*",), ("send",), 60, {"m": 1}, {"p": 2}),
        TokenRequest("alice", (), ()),
    ],
)
def test_a_token_request_both_ways(request_: TokenRequest) -> None:
    assert TokenRequest.parse(request_.body()) == request_
    claims = request_.claims(1000)
    assert (claims.peer_id, claims.expires_at) == ("alice", 1000 + request_.expires_in)
    assert (claims.channels, claims.permissions) == (request_.channels, request_.permissions)


def test_a_token_request_has_defaults() -> None:
    assert TokenRequest.parse({"peerId": "a", "unknown": 1}) == TokenRequest("a", None, None, 3600)
    assert TokenRequest("a").body() == {"peerId": "a", "expiresInSec": 3600}


@pytest.mark.parametrize(
    "change",
    [
        {"peerId": None},
        {"peerId": 7},
        {"peerId": ""},
        {"peerId": "x" * 129},
        {"channels": "a"},
        {"channels": [1]},
        {"channels": ["a"] * 101},
        {"permissions": ["fly"]},
        {"permissions": {}},
        {"expiresInSec": 0},
        {"expiresInSec": 86401},
        {"expiresInSec": 1.5},
        {"expiresInSec": True},
        {"expiresInSec": "60"},
        {"metadata": []},
        {"metadata": {"x": "y" * 8192}},
        {"peerMetadata": {"x": "y" * 4096}},
    ],
)
def test_a_bad_token_request(change: dict[str, Any]) -> None:
    with pytest.raises(FieldError):
        TokenRequest.parse({"peerId": "alice", **change})


def test_a_token_both_ways_and_unseen() -> None:
    token = Token.parse({"token": "eyJ.secret.sig", "expiresAt": 1_900_000_000.0})
    assert (token.token, token.expires_at) == ("eyJ.secret.sig", 1_900_000_000)
    assert Token.parse(token.body()) == token
    assert Token.parse({"token": "t", "expiresAt": 1.5}).expires_at == 1.5
    assert "secret" not in repr(token)


def test_a_publish_request_both_ways() -> None:
    for request in (MessageRequest(None), MessageRequest([1], "sys", {"a": 1})):
        assert MessageRequest.parse(request.body()) == request
    assert MessageRequest.parse({"data": 1}).sender == "system"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"data": 1, "from": ""},
        {"data": 1, "from": 7},
        {"data": 1, "from": "x" * 129},
        {"data": 1, "peerMetadata": 7},
        {"data": 1, "peerMetadata": {"x": "y" * 4096}},
    ],
)
def test_a_bad_publish_request(body: dict[str, Any]) -> None:
    with pytest.raises(FieldError):
        MessageRequest.parse(body)


def test_peers_both_ways() -> None:
    peers = {"u1": {"name": "Ann"}, "u2": None}
    body = control.peers_body("room", peers)
    assert body["peers"][1] == {"peerId": "u2"}  # no key without metadata
    assert control.parse_peers(body) == peers
    assert control.parse_peers({"peers": [{"peerId": "x", "metadata": 7}]}) == {"x": None}
    assert control.parse_peers({"peers": []}) == {}


def test_disconnected_both_ways() -> None:
    assert control.parse_disconnected(control.disconnected_body("u", 2)) == 2


def test_usage_both_ways() -> None:
    usage = Usage.parse(USAGE)
    assert usage.body() == USAGE
    assert usage.period_end_unix is None
    assert usage.messages_used == 3
    assert usage.plan == Plan(None, 100, 100_000, False, True)


@pytest.mark.parametrize(
    ("parse", "body"),
    [
        (Token.parse, "text"),
        (Token.parse, {"token": 7, "expiresAt": 1}),
        (Token.parse, {"token": "t", "expiresAt": "soon"}),
        (Token.parse, {"token": "t", "expiresAt": float("inf")}),
        (Token.parse, {"token": "t", "expiresAt": float("nan")}),
        (Token.parse, {"token": "t", "expiresAt": 10**400}),
        (control.parse_peers, []),
        (control.parse_peers, {"peers": {}}),
        (control.parse_peers, {"peers": ["u1"]}),
        (control.parse_peers, {"peers": [{}]}),
        (control.parse_disconnected, {"closed": None}),
        (control.parse_disconnected, {"closed": True}),
        (Usage.parse, None),
        (Usage.parse, {**USAGE, "concurrentNow": "many"}),
        (Usage.parse, {**USAGE, "plan": None}),
        (Usage.parse, {**USAGE, "plan": {"name": "x"}}),
        (Usage.parse, {**USAGE, "plan": {**USAGE["plan"], "overagesAllowed": 1}}),  # type: ignore[dict-item]
    ],
)
def test_malformed_answers(parse: Callable[[object], Any], body: object) -> None:
    with pytest.raises(FieldError):
        parse(body)
