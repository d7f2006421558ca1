"""Test the TURN service's API against the local cloud, and against servers that misbehave."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from metered_sync import ClosedError, IceServer, MeteredTimeoutError, TurnApi, TurnError
from metered_sync.local import LocalCloud
from tests.rules.test_secrets import shown
from tests.support.scripted_http import ScriptedHttp

API_KEY, SECRET_KEY = "HUSHHUSH/api+key", "HUSHHUSH&secret=key"

CREDENTIAL = {"username": "HUSHHUSH-u", "password": "HUSHHUSH-p", "apiKey": "HUSHHUSH-k"}
PAGE = {
    "data": [{**CREDENTIAL, "expiryInSeconds": 60, "label": "l", "expired": True}],
    "pagination": {
        "total_records": 51,
        "current_page": 1,
        "total_pages": 2,
        "next_page": 2,
        "prev_page": None,
    },
}
CALLS: dict[str, tuple[Callable[[TurnApi], Any], Any]] = {
    "ice_servers": (lambda turn: turn.ice_servers(), [{"urls": "stun:h:80"}]),
    "create_credential": (lambda turn: turn.create_credential(), CREDENTIAL),
    "credentials": (lambda turn: turn.credentials(), PAGE),
}
calls = pytest.mark.parametrize(("call", "answer"), CALLS.values(), ids=CALLS)


@pytest.fixture
def turn(scripted: ScriptedHttp) -> Any:
    with TurnApi("demo", api_key=API_KEY, secret_key=SECRET_KEY, url=scripted.origin) as turn:
        yield turn


def test_with_the_local_cloud(cloud: LocalCloud) -> None:
    with TurnApi(**cloud.turn_options()) as turn:
        servers = turn.ice_servers(region="europe")
        assert any(url.startswith("turn:") for server in servers for url in server.urls)
        assert any(server.credential for server in servers)
        made = [turn.create_credential(expires_in=60, label="guests") for _ in range(51)]
        turn.create_credential()
        # A credential's own key asks for the servers with it.
        options = {**cloud.turn_options(), "api_key": made[0].api_key, "secret_key": None}
        listed = TurnApi(**options).ice_servers()
        assert {(s.username, s.credential) for s in listed if s.username} == {
            (made[0].username, made[0].password)
        }
        pages = [turn.credentials(label="guests")]
        while pages[-1].next_page is not None:
            pages.append(turn.credentials(page=pages[-1].next_page, label="guests"))
        assert [credential for page in pages for credential in page] == made
        assert (len(pages), pages[1].prev_page, pages[0].total_records) == (2, 1, 51)
        assert turn.credentials().total_records == 52
    with pytest.raises(TurnError, match="Invalid API Key"):
        TurnApi("local", api_key=API_KEY, url=cloud.http_url).ice_servers()
    with pytest.raises(TurnError, match="401"):
        TurnApi("local", secret_key=SECRET_KEY, url=cloud.http_url).create_credential()
    with pytest.raises(TurnError, match="400"):
        TurnApi(**cloud.turn_options()).ice_servers(region="moon")


def test_servers_to_hand_out(scripted: ScriptedHttp, turn: TurnApi) -> None:
    body = [
        {"urls": "stun:h:80"},
        {"urls": "turn:h:80?transport=tcp", "username": "u", "credential": "HUSHHUSH-c"},
    ]
    scripted.script = [(200, {}, json.dumps(body).encode())] * 2
    servers = turn.ice_servers()
    assert servers == (
        IceServer(("stun:h:80",)),
        IceServer(("turn:h:80?transport=tcp",), "u", "HUSHHUSH-c"),
    )
    assert [server.as_dict() for server in servers] == body
    assert "HUSHHUSH" not in shown(servers)
    turn.ice_servers(region="north america")
    key = "apiKey=HUSHHUSH%2Fapi%2Bkey"
    assert [(asked.method, asked.path) for asked in scripted.asked] == [
        ("GET", f"/api/v1/turn/credentials?{key}"),
        ("GET", f"/api/v1/turn/credentials?region=north+america&{key}"),
    ]


def test_a_credential_is_made(scripted: ScriptedHttp, turn: TurnApi) -> None:
    echo = {**CREDENTIAL, "expiryInSeconds": 60, "label": "alice"}
    scripted.script = [(200, {}, json.dumps(body).encode()) for body in (echo, CREDENTIAL)]
    credential = turn.create_credential(expires_in=60, label="alice")
    assert (credential.username, credential.password) == ("HUSHHUSH-u", "HUSHHUSH-p")
    assert (credential.expires_in, credential.label) == (60, "alice")
    assert "HUSHHUSH" not in shown(credential)
    turn.create_credential()
    first, second = scripted.asked
    assert (first.method, first.path) == (
        "POST",
        "/api/v1/turn/credential?secretKey=HUSHHUSH%26secret%3Dkey",
    )
    assert json.loads(first.body) == {"expiryInSeconds": 60, "label": "alice"}
    assert json.loads(second.body) == {}


def test_credentials_come_in_pages(scripted: ScriptedHttp, turn: TurnApi) -> None:
    scripted.script = [(200, {}, json.dumps(PAGE).encode())] * 2
    page = turn.credentials()
    assert [credential.expired for credential in page] == [True]
    assert (len(page), page.total_records, page.next_page) == (1, 51, 2)
    assert "HUSHHUSH" not in shown(page)
    turn.credentials(page=2, label="a b")
    key = "secretKey=HUSHHUSH%26secret%3Dkey"
    assert [asked.path for asked in scripted.asked] == [
        f"/api/v2/turn/credentials?page=1&{key}",
        f"/api/v2/turn/credentials?page=2&label=a+b&{key}",
    ]


def test_each_call_says_which_key_it_needs() -> None:
    with pytest.raises(ValueError, match="secret_key"):
        TurnApi("demo", api_key=API_KEY).create_credential()
    with pytest.raises(ValueError, match="secret_key"):
        TurnApi("demo", api_key=API_KEY).credentials()
    with pytest.raises(ValueError, match="api_key"):
        TurnApi("demo", secret_key=SECRET_KEY).ice_servers()


@pytest.mark.parametrize(
    ("app", "options", "words"),
    [
        ("", {"api_key": API_KEY}, "app"),
        (None, {"api_key": API_KEY}, "app"),
        ("demo.metered.live", {"api_key": API_KEY}, "app"),
        ("evil.example/x", {"api_key": API_KEY}, "app"),
        ("demo", {}, "api_key"),
        ("demo", {"api_key": ""}, "api_key"),
        ("demo", {"secret_key": "HUSHHUSH two"}, "secret_key"),
        ("demo", {"api_key": API_KEY, "url": f"https://h/?apiKey={API_KEY}"}, "url"),
        ("demo", {"api_key": API_KEY, "url": "http://h"}, "in the clear"),
        ("demo", {"api_key": API_KEY, "timeout": -1}, "timeout"),
    ],
)
def test_bad_options(app: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        TurnApi(app, **options)
    assert "HUSHHUSH" not in shown(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda turn: turn.ice_servers(region=""),
        lambda turn: turn.ice_servers(region=7),
        lambda turn: turn.create_credential(expires_in=0),
        lambda turn: turn.create_credential(expires_in=1.5),
        lambda turn: turn.create_credential(expires_in=True),
        lambda turn: turn.create_credential(label=""),
        lambda turn: turn.credentials(page=0),
        lambda turn: turn.credentials(page="2"),
        lambda turn: turn.credentials(label=7),
    ],
)
def test_bad_arguments(scripted: ScriptedHttp, turn: TurnApi, call: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        call(turn)
    assert scripted.asked == []


def test_the_services_address() -> None:
    assert repr(TurnApi("demo", api_key=API_KEY)) == "<TurnApi demo at https://demo.metered.live>"


@calls
@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, {"error": "Invalid API Key"}, ["401", "Invalid API Key", "demo"]),
        (400, {"message": "expiryInSeconds must be a positive integer"}, ["positive integer"]),
        (404, "<html>", ["url"]),
        (503, {}, ["try again"]),
    ],
)
def test_refusals(
    scripted: ScriptedHttp,
    turn: TurnApi,
    call: Callable[[TurnApi], Any],
    answer: Any,
    status: int,
    body: Any,
    words: list[str],
) -> None:
    scripted.script = [(status, {}, json.dumps(body).encode())] * 4
    with pytest.raises(TurnError) as caught:
        call(turn)
    assert caught.value.status == status
    for word in words:
        assert word in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


@calls
def test_no_secret_is_shown(
    scripted: ScriptedHttp,
    turn: TurnApi,
    log: io.StringIO,
    call: Callable[[TurnApi], Any],
    answer: Any,
) -> None:
    """The keys go into the query, which everybody likes to repeat."""
    output = shown(turn)
    key = API_KEY if call is CALLS["ice_servers"][0] else SECRET_KEY
    echo = json.dumps({"error": key, "message": f"{quote(key)} and ?secretKey={key}"}).encode()
    for script in (
        [(200, {}, json.dumps(answer).encode())],
        [(400, {}, echo)],
        [(200, {}, echo)],
        [(200, {}, b'[{"urls": "HUSHHUSH"}]')],
        [(0, {}, b"")] * 4,
    ):
        scripted.script = script
        try:
            output += shown(call(turn))
        except TurnError as error:
            output += shown(error)
    gone = TurnApi("demo", api_key=API_KEY, secret_key=SECRET_KEY, url="http://127.0.0.1:9")
    with pytest.raises(TurnError, match="refused") as caught:
        call(gone)
    output += shown(caught.value)
    output += log.getvalue()
    assert "/api/v" in log.getvalue()  # the requests are logged ...
    assert "HUSHHUSH" not in output  # ... without the keys


def test_making_a_credential_is_not_repeated(scripted: ScriptedHttp, turn: TurnApi) -> None:
    scripted.script = [(503, {}, b"")]
    with pytest.raises(TurnError) as caught:
        turn.create_credential()
    assert caught.value.sent
    assert len(scripted.asked) == 1


def test_deadline_and_closing(scripted: ScriptedHttp, turn: TurnApi) -> None:
    scripted.wait = threading.Event()
    scripted.script = [(200, {}, b"[]")]
    with pytest.raises(MeteredTimeoutError, match="ice_servers"):
        turn.ice_servers(timeout=0.2)
    turn.close()
    with pytest.raises(ClosedError):
        turn.ice_servers()
