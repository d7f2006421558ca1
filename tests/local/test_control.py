"""Test the control plane's REST calls, as any HTTP client sees them."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import quote

import jwt
import pytest
import requests

from metered_sync.local import LocalCloud
from metered_sync.local.keys import SecretKey
from metered_sync.wire.tokens import Grant
from tests.conftest import wait_until
from tests.support.raw_client import closed_with, raw


def call(
    cloud: LocalCloud, method: str, path: str, *, key: str | None = None, **options: Any
) -> tuple[int, Any]:
    credential = key or f"{cloud.key_id}:{cloud.key_secret}"
    headers = {"Authorization": f"Bearer {credential}", **options.pop("headers", {})}
    url = f"{cloud.http_url}{path}"
    answer = requests.request(method, url, headers=headers, timeout=10, **options)
    return answer.status_code, answer.json()


def refusal(answer: tuple[int, Any]) -> tuple[int, str]:
    """Return status and code of an error, whose shape is fixed."""
    status, body = answer
    assert set(body) == {"error", "message"}
    assert isinstance(body["message"], str)
    return status, body["error"]


@pytest.fixture(scope="module")
def narrow(shared_cloud: LocalCloud) -> str:
    """A key pair that has neither ``presence`` nor ``send``, and only channels under ``a/``."""
    key = SecretKey(
        "sk_id_narrow",
        "sk_secret_narrow_but_long_enough_to_sign",
        Grant((("a/**",),), frozenset(("publish", "subscribe"))),
    )
    assert key.secret not in repr(key)
    assert shared_cloud._servers is not None
    shared_cloud._servers.signalling.keys.add(key)
    return f"{key.id}:{key.secret}"


# --- who may call ---


def test_one_answer_for_whatever_is_wrong_with_the_key(shared_cloud: LocalCloud) -> None:
    pair = f"{shared_cloud.key_id}:{shared_cloud.key_secret}"
    answers = set()
    for authorization in (
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Basic {pair}",
        pair,
        f"Bearer {shared_cloud.key_id}",
        f"Bearer {shared_cloud.key_secret}",
        f"Bearer {shared_cloud.key_id}:",
        f"Bearer :{shared_cloud.key_secret}",
        f"Bearer {shared_cloud.key_id}:wrong",
        f"Bearer {pair}x",
        f"Bearer sk_id_unknown:{shared_cloud.key_secret}",
        "Bearer sk_id_unknown:",
        f"Bearer {shared_cloud.publishable_key}",
        f"Bearer {shared_cloud.publishable_key}:{shared_cloud.publishable_key}",
        b"Bearer \xff\xfe:\xff",
    ):
        headers = {} if authorization is None else {"Authorization": authorization}
        for method, path in (("GET", "/v1/usage"), ("POST", "/v1/tokens")):
            answer = requests.request(
                method, shared_cloud.http_url + path, headers=headers, timeout=10
            )
            assert answer.status_code == 401, authorization
            answers.add(answer.text)
    assert len(answers) == 1
    assert json.loads(answers.pop())["error"] == "unauthorized"


def test_the_scheme_is_read_whatever_its_case(shared_cloud: LocalCloud) -> None:
    pair = f"{shared_cloud.key_id}:{shared_cloud.key_secret}"
    headers = {"Authorization": f"bearer  {pair}"}
    answer = requests.get(f"{shared_cloud.http_url}/v1/usage", headers=headers, timeout=20)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/nothing"),
        ("GET", "/v1/"),
        ("POST", "/v1"),
        ("GET", "/v1/tokens"),
        ("DELETE", "/v1/usage"),
        ("PUT", "/v1/channels/c/publish"),
        ("GET", "/v1/channels/c"),
        ("GET", "/v1/channels"),
        ("GET", "/v1/peers/p"),
        ("OPTIONS", "/v1/tokens"),
        ("PATCH", "/v1/tokens"),
    ],
)
def test_what_is_no_endpoint(shared_cloud: LocalCloud, method: str, path: str) -> None:
    assert refusal(call(shared_cloud, method, path)) == (404, "not_found")
    assert refusal(call(shared_cloud, method, path, key="wrong")) == (404, "not_found")


def test_bodies_are_bounded(shared_cloud: LocalCloud) -> None:
    for path in ("/v1/tokens", "/v1/channels/c/publish"):
        text = json.dumps({"data": "", "peerId": "p"})
        fitting = text[:-1] + " " * (32768 - len(text)) + "}"
        assert call(shared_cloud, "POST", path, data=fitting)[0] == 200
        assert refusal(call(shared_cloud, "POST", path, data=fitting + " ")) == (
            413,
            "invalid_request",
        )
        pieces = (b"x" * 10_000 for _ in range(200))  # chunked: its length is not told before
        assert refusal(call(shared_cloud, "POST", path, data=pieces)) == (413, "invalid_request")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]",
        b"7",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b"[" * 30_000,
        b'{"peerId":NaN,"data":NaN}',
        b'{"peerId":"\\ud800","data":"\\ud800"}',
        b'{"peerId":"p","metadata":{"x":"\\ud800"},"data":1,"from":"\\ud800"}',
        b'{"peerId":"p","metadata":{"x":1e999},"data":1e999}',
    ],
)
def test_bodies_that_are_none(shared_cloud: LocalCloud, body: bytes) -> None:
    for path in ("/v1/tokens", "/v1/channels/c/publish"):
        assert refusal(call(shared_cloud, "POST", path, data=body)) == (400, "invalid_request")


def test_a_body_that_does_not_keep_its_encoding(shared_cloud: LocalCloud) -> None:
    answer = requests.post(
        f"{shared_cloud.http_url}/v1/tokens",
        data=b"nonsense",
        headers={
            "Authorization": f"Bearer {shared_cloud.key_id}:{shared_cloud.key_secret}",
            "Content-Encoding": "gzip",
        },
        timeout=10,
    )
    assert answer.status_code == 400


# --- POST /v1/tokens ---


def test_a_minted_token_connects(shared_cloud: LocalCloud) -> None:
    status, body = call(
        shared_cloud,
        "POST",
        "/v1/tokens",
        json={
            "peerId": "minted",
            "channels": ["a/*"],
            "permissions": ["subscribe"],
            "expiresInSec": 60,
            "metadata": {"m": 1},
            "peerMetadata": {"p": 2},
        },
    )
    assert (status, set(body)) == (200, {"token", "expiresAt"})
    assert isinstance(body["expiresAt"], int)
    assert 50 < body["expiresAt"] - time.time() < 70
    header = jwt.get_unverified_header(body["token"])
    assert header == {"alg": "HS256", "typ": "JWT", "kid": shared_cloud.key_id}
    claims = jwt.decode(body["token"], options={"verify_signature": False})
    assert claims["exp"] == body["expiresAt"]
    with raw(shared_cloud, token=body["token"]) as client:
        assert client.welcome["peerId"] == "minted"
        assert client.welcome["metadata"] == {"m": 1}
        assert client.ask(type="subscribe", channel="a/b", requestId="1")["type"] == "ack"
        answer = client.ask(type="publish", channel="a/b", data=1)
        assert answer["code"] == "action_not_permitted"


def test_a_token_lives_an_hour_unless_asked(shared_cloud: LocalCloud) -> None:
    for wish, seconds in (({}, 3600), ({"expiresInSec": 86400}, 86400), ({"expiresInSec": 1}, 1)):
        _, body = call(shared_cloud, "POST", "/v1/tokens", json={"peerId": "p", **wish})
        assert abs(body["expiresAt"] - time.time() - seconds) < 10


@pytest.mark.parametrize(
    ("wish", "status", "code"),
    [
        ({"peerId": None}, 400, "invalid_request"),
        ({"peerId": ""}, 400, "invalid_request"),
        ({"peerId": 7}, 400, "invalid_request"),
        ({"peerId": "é"}, 400, "invalid_request"),
        ({"peerId": "x" * 129}, 400, "invalid_request"),
        ({"channels": "a/b"}, 400, "invalid_request"),
        ({"channels": [7]}, 400, "invalid_request"),
        ({"channels": [""]}, 400, "invalid_request"),
        ({"channels": ["a/x"] * 101}, 400, "invalid_request"),
        ({"channels": ["_metered/x"]}, 400, "channel_reserved"),
        ({"channels": ["b"]}, 403, "channel_not_authorized"),
        ({"channels": ["a/x", "**"]}, 403, "channel_not_authorized"),
        ({"permissions": ["fly"]}, 400, "invalid_request"),
        ({"permissions": ["publish"] * 17}, 400, "invalid_request"),
        ({"permissions": "publish"}, 400, "invalid_request"),
        ({"permissions": ["publish", "send"]}, 403, "action_not_permitted"),
        ({"expiresInSec": 0}, 400, "invalid_request"),
        ({"expiresInSec": -1}, 400, "invalid_request"),
        ({"expiresInSec": 86401}, 400, "invalid_request"),
        ({"expiresInSec": 1.5}, 400, "invalid_request"),
        ({"expiresInSec": "60"}, 400, "invalid_request"),
        ({"expiresInSec": True}, 400, "invalid_request"),
        ({"metadata": []}, 400, "invalid_request"),
        ({"metadata": {"x": "y" * 8192}}, 400, "invalid_request"),
        ({"peerMetadata": "x"}, 400, "invalid_request"),
        ({"peerMetadata": {"x": "y" * 4096}}, 400, "invalid_request"),
    ],
)
def test_tokens_that_are_not_minted(
    shared_cloud: LocalCloud, narrow: str, wish: dict[str, Any], status: int, code: str
) -> None:
    body = {"peerId": "p", **wish}
    answer = call(shared_cloud, "POST", "/v1/tokens", key=narrow, json=body)
    assert refusal(answer) == (status, code)


def test_what_a_narrow_key_may_mint(shared_cloud: LocalCloud, narrow: str) -> None:
    body = {"peerId": "p", "channels": ["a/**", "a/*/b", "a/x"], "permissions": ["publish"]}
    assert call(shared_cloud, "POST", "/v1/tokens", key=narrow, json=body)[0] == 200


# --- channels ---


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("rest-room", "rest-room"),
        ("app%2Froom-1", "app/room-1"),
        ("app/room-1", "app/room-1"),
        ("a/peers", "a/peers"),
        ("r%C3%A4um%20e%25", "räum e%"),
        ("q%3Fx%23y", "q?x#y"),
    ],
)
def test_names_in_paths(shared_cloud: LocalCloud, path: str, name: str) -> None:
    with raw(shared_cloud, "member", peer_metadata={"m": 1}) as member, raw(shared_cloud) as other:
        for client in (member, other):
            client.ask(type="subscribe", channel=name, requestId="1")
            client.receive()
        assert member.receive()["type"] == "presence"
        status, body = call(shared_cloud, "GET", f"/v1/channels/{path}/peers")
        assert (status, body["channel"]) == (200, name)
        assert body["peers"] == [
            {"peerId": "member", "metadata": {"m": 1}},
            {"peerId": other.welcome["peerId"]},
        ]
        status, body = call(
            shared_cloud, "POST", f"/v1/channels/{path}/publish", json={"data": None}
        )
        assert (status, body) == (200, {"channel": name})
        expected = {"type": "message", "channel": name, "from": "system", "data": None}
        assert member.receive() == other.receive() == expected


def test_an_empty_channel_has_an_empty_list(shared_cloud: LocalCloud) -> None:
    answer = call(shared_cloud, "GET", "/v1/channels/nobody%20here/peers")
    assert answer == (200, {"channel": "nobody here", "peers": []})


def test_peers_are_listed_once_and_without_the_presence_permission_too(
    shared_cloud: LocalCloud,
) -> None:
    with (
        raw(shared_cloud, "twin", permissions=["subscribe"]) as one,
        raw(shared_cloud, "twin", permissions=["subscribe"]) as two,
    ):
        for client in (one, two):
            client.ask(type="subscribe", channel="listed", requestId="1")
        _, body = call(shared_cloud, "GET", "/v1/channels/listed/peers")
        assert body["peers"] == [{"peerId": "twin"}]
    wait_until(lambda: not call(shared_cloud, "GET", "/v1/channels/listed/peers")[1]["peers"])


def test_publishing_with_a_sender_and_metadata(shared_cloud: LocalCloud) -> None:
    with raw(shared_cloud, "reader") as plain, raw(shared_cloud, "reader") as curious:
        plain.ask(type="subscribe", channel="rest-meta")
        curious.ask(type="subscribe", channel="rest-meta", includeSenderMetadata=True)
        body = {"data": [1], "from": "backend", "peerMetadata": {"role": "bot"}}
        assert call(shared_cloud, "POST", "/v1/channels/rest-meta/publish", json=body)[0] == 200
        message = {"type": "message", "channel": "rest-meta", "from": "backend", "data": [1]}
        assert plain.receive() == message
        assert curious.receive() == {**message, "fromMetadata": {"role": "bot"}}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "a/x/publish", {}, 400, "invalid_request"),
        ("POST", "a/x/publish", {"data": 1, "from": ""}, 400, "invalid_request"),
        ("POST", "a/x/publish", {"data": 1, "from": "é"}, 400, "invalid_request"),
        ("POST", "a/x/publish", {"data": 1, "from": 7}, 400, "invalid_request"),
        ("POST", "a/x/publish", {"data": 1, "peerMetadata": []}, 400, "invalid_request"),
        (
            "POST",
            "a/x/publish",
            {"data": 1, "peerMetadata": {"x": "y" * 4096}},
            400,
            "invalid_request",
        ),
        ("POST", "b/publish", {"data": 1}, 403, "channel_not_authorized"),
        ("POST", "_Metered%2Fx/publish", {"data": 1}, 400, "channel_reserved"),
        ("POST", "/publish", {"data": 1}, 400, "invalid_request"),
        ("POST", "%FF/publish", {"data": 1}, 400, "invalid_request"),
        ("POST", "a%00b/publish", {"data": 1}, 400, "invalid_request"),
        ("POST", "x" * 257 + "/publish", {"data": 1}, 400, "invalid_request"),
        ("GET", "a/x/peers", None, 403, "action_not_permitted"),
        ("GET", "_metered/x/peers", None, 400, "channel_reserved"),
        ("GET", "/peers", None, 400, "invalid_request"),
        ("GET", "%ED%A0%80/peers", None, 400, "invalid_request"),
        ("GET", "x%7F/peers", None, 400, "invalid_request"),
    ],
)
def test_refusals_of_channels(
    shared_cloud: LocalCloud,
    narrow: str,
    method: str,
    path: str,
    body: Any,
    status: int,
    code: str,
) -> None:
    answer = call(shared_cloud, method, f"/v1/channels/{path}", key=narrow, json=body)
    assert refusal(answer) == (status, code)


def test_a_channel_outside_the_keys_patterns(shared_cloud: LocalCloud) -> None:
    key = SecretKey("sk_id_p", "sk_secret_" + "p" * 40, Grant((("a/*",),)))
    assert shared_cloud._servers is not None
    shared_cloud._servers.signalling.keys.add(key)
    credential = f"{key.id}:{key.secret}"
    assert call(shared_cloud, "GET", "/v1/channels/a%2Fx/peers", key=credential)[0] == 200
    answer = call(shared_cloud, "GET", "/v1/channels/a%2Fx%2Fy/peers", key=credential)
    assert refusal(answer) == (403, "channel_not_authorized")


# --- DELETE /v1/peers/:id ---


def test_disconnecting_closes_every_socket_of_a_peer(shared_cloud: LocalCloud, narrow: str) -> None:
    peer_id = "tab/let 1"
    path = f"/v1/peers/{quote(peer_id, safe='')}"
    with (
        raw(shared_cloud, peer_id) as one,
        raw(shared_cloud, peer_id) as two,
        raw(shared_cloud) as other,
    ):
        one.ask(type="subscribe", channel="kicked")
        # Any key of the app will do.
        answer = call(shared_cloud, "DELETE", path, key=narrow)
        assert answer == (200, {"peerId": peer_id, "closed": 2})
        # It is gone at once, whatever its client does about the close frame.
        assert call(shared_cloud, "DELETE", path) == (200, {"peerId": peer_id, "closed": 0})
        assert call(shared_cloud, "GET", "/v1/channels/kicked/peers")[1]["peers"] == []
        assert closed_with(one) == closed_with(two) == 4020
        assert other.silent()
    with raw(shared_cloud, peer_id) as again:  # nothing is revoked
        assert again.welcome["peerId"] == peer_id


@pytest.mark.parametrize("peer_id", ["", "x" * 129, "%C3%A9", "%FF", "a%0Ab"])
def test_peer_ids_that_are_none(shared_cloud: LocalCloud, peer_id: str) -> None:
    answer = call(shared_cloud, "DELETE", f"/v1/peers/{peer_id}")
    assert refusal(answer) == (400, "invalid_request")


# --- GET /v1/usage ---


def test_usage_is_what_was_used() -> None:
    with LocalCloud(max_connections=3, max_messages=5) as cloud:
        with raw(cloud) as one, raw(cloud, "two"):
            one.ask(type="publish", channel="x", data=1, requestId="1")
            one.ask(type="send", to="nobody", data=1)
            one.ask(type="publish", channel="x")  # no data: refused before it counts
            call(cloud, "POST", "/v1/channels/x/publish", json={"data": 1})
        with raw(cloud) as third:
            status, body = call(cloud, "GET", "/v1/usage")
            assert third.silent()
        start = body.pop("periodStartUnix")
        assert abs(start - time.time()) < 30
        assert (status, body) == (
            200,
            {
                "appId": cloud.sfu_app_id,
                "periodEndUnix": None,
                "concurrentNow": 1,
                "peakConcurrent": 2,
                "messagesUsed": 3,
                "overageMessages": 0,
                "overageConnections": 0,
                "plan": {
                    "name": "SIGNALLING_FREE",
                    "maxConcurrentConnections": 3,
                    "maxMessagesPerPeriod": 5,
                    "overagesAllowed": False,
                    "overagesEnabled": False,
                },
            },
        )
