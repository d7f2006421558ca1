"""Test the address of the page that joins a room, and the tokens that the page gets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
import requests

from metered_sync import (
    ClosedError,
    MeteredError,
    NotConnectedError,
    ServerRequestError,
    SignallingClient,
)
from metered_sync.local import LocalCloud

PAGE = "a page's own secret"


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(console=True) as cloud:
        yield cloud


def ask(url: str, body: Any = None, path: str = "/token", **headers: str) -> requests.Response:
    """Post to the page's server as the page does, with the token of its address."""
    parts = urlsplit(url)
    token = parse_qs(parts.query)["token"][0]
    return requests.post(
        f"{parts.scheme}://{parts.netloc}{parts.path}{path}",
        json=body,
        headers={"Authorization": f"Bearer {token}", **headers},
        timeout=10,
    )


def claims(answer: requests.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return dict(jwt.decode(answer.json()["token"], options={"verify_signature": False}))


def test_the_address_names_the_room(cloud: LocalCloud) -> None:
    url = cloud.join_url("team/été & co", "Zoë", media="sfu")
    query = parse_qs(urlsplit(url).query)
    assert (query["channel"], query["name"], query["media"]) == (
        ["team/été & co"],
        ["Zoë"],
        ["sfu"],
    )
    assert url.startswith(f"{cloud.http_url}/console/join?")
    plain = parse_qs(urlsplit(cloud.join_url("team")).query)
    assert sorted(plain) == ["channel", "media", "token"]
    assert plain["media"] == ["mesh"]
    page = requests.get(url, timeout=20)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"channel": ""}, ValueError, "must not be empty"),
        ({"channel": "team/*"}, ValueError, "join_url: .* is a pattern"),
        ({"channel": "_metered/x"}, ValueError, "reserves"),
        ({"channel": "x" * 257}, ValueError, "257 bytes"),
        ({"channel": None}, TypeError, "NoneType"),
        ({"channel": "team", "media": "SFU"}, ValueError, 'media must be "mesh" or "sfu"'),
        ({"channel": "team", "media": None}, ValueError, "media must be"),
        ({"channel": "team", "name": ""}, ValueError, "the name must not be empty"),
        ({"channel": "team", "name": "a\nb"}, ValueError, "control character"),
        ({"channel": "team", "name": "x" * 257}, ValueError, "257 bytes"),
        ({"channel": "team", "name": 7}, TypeError, "the name must be a string, not int"),
    ],
    ids=str,
)
def test_its_arguments_are_checked(
    cloud: LocalCloud, arguments: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        cloud.join_url(**arguments)


def test_only_a_cloud_with_a_console_has_one() -> None:
    with LocalCloud() as cloud, pytest.raises(MeteredError, match=r"join_url: .*console=True"):
        cloud.join_url("team")
    cloud = LocalCloud(console=True)
    with pytest.raises(NotConnectedError, match=r"join_url: .*start\(\)"):
        cloud.join_url("team")
    cloud.close()
    with pytest.raises(ClosedError):
        cloud.join_url("team")


def test_a_page_gets_a_token_for_its_channel(cloud: LocalCloud) -> None:
    url = cloud.join_url("team")
    answer = ask(url, {"page": PAGE, "channel": "team", "name": "Zoë <script>"})
    mine = claims(answer)
    assert mine["channels"] == ["team"]
    assert mine["peerMetadata"] == {"name": "Zoë <script>"}
    assert mine["exp"] == pytest.approx(answer.json()["expires_at"], abs=2)
    assert cloud.key_secret not in answer.text
    with SignallingClient(token_provider=lambda: answer.json()["token"], url=cloud.url) as client:
        assert client.peer_id == mine["sub"]
        client.subscribe("team")
        with pytest.raises(ServerRequestError, match="channel_not_authorized"):
            client.subscribe("another")


def test_each_page_is_a_member_of_its_own(cloud: LocalCloud) -> None:
    url = cloud.join_url("team")
    again = [claims(ask(url, {"page": PAGE, "channel": "team"})) for _ in range(2)]
    other = claims(ask(url, {"page": PAGE + "!", "channel": "team"}))
    assert again[0]["sub"] == again[1]["sub"] != other["sub"]
    assert "peerMetadata" not in other
    assert PAGE not in str(again)


def test_a_backslash_in_a_name_is_none_of_a_pattern(cloud: LocalCloud) -> None:
    token = ask(cloud.join_url("a\\b"), {"page": PAGE, "channel": "a\\b"}).json()["token"]
    with SignallingClient(token_provider=token, url=cloud.url) as client:
        client.subscribe("a\\b")


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {"channel": "team"},
        {"page": "short", "channel": "team"},
        {"page": "x" * 101, "channel": "team"},
        {"page": "é" * 20, "channel": "team"},
        {"page": PAGE},
        {"page": PAGE, "channel": "**"},
        {"page": PAGE, "channel": "_SYSTEM/x"},
        {"page": PAGE, "channel": "team", "name": ["x"]},
        {"page": PAGE, "channel": "team", "name": "\x00"},
    ],
    ids=str,
)
def test_a_token_is_refused(cloud: LocalCloud, body: object) -> None:
    answer = ask(cloud.join_url("team"), body)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def test_its_token_opens_nothing_else(cloud: LocalCloud) -> None:
    join, console = cloud.join_url("team"), cloud.console_url
    theirs, ours = (parse_qs(urlsplit(url).query)["token"][0] for url in (join, console))
    body = {"page": PAGE, "channel": "team"}
    assert requests.get(console.replace(ours, theirs), timeout=10).status_code == 401
    for wrong in (join.replace(theirs, ours), join.replace(theirs, "")):
        answer = requests.get(wrong, headers={"Accept": "text/html,*/*"}, timeout=20)
        assert answer.status_code == 401
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert "cloud.join_url" in answer.text
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert ask(join, body, Authorization=f"Bearer {ours}").status_code == 401
    assert ask(join, body, Authorization="").status_code == 401
    for name, value in (("Origin", "null"), ("Origin", "http://x.example"), ("Host", "x.example")):
        for path in ("/token", "/sfu/session/new"):
            assert ask(join, body, path, **{name: value}).status_code == 403


def test_the_way_to_the_sfu_takes_the_rooms_token(cloud: LocalCloud) -> None:
    url = cloud.join_url("team", media="sfu")
    base = url.partition("?")[0]
    token = ask(url, {"page": PAGE, "channel": "team"}).json()["token"]
    room = {"Authorization": f"Bearer {token}"}
    assert ask(url, {}, "/sfu/session/new").status_code == 401  # with the page's
    assert requests.get(f"{base}/sfu/sessions", timeout=20).status_code == 401
    answer = requests.get(f"{base}/sfu/sessions", headers=room, timeout=20)
    assert (answer.status_code, answer.json()["error"]) == (403, "not_listed")
    assert ask(url, {}, "/sfu/session/new", **room).json()["error"] == "bad_request"
    assert ask(url, "x" * 300_000, "/sfu/session/new", **room).status_code == 413
    assert cloud.sfu_secret not in answer.text
