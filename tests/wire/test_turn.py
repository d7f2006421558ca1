"""Test the bodies of the TURN service's calls in both directions, and lists of ICE servers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from metered_sync import IceServer
from metered_sync.wire import turn
from metered_sync.wire.fields import FieldError
from metered_sync.wire.turn import (
    CredentialRequest,
    TurnCredential,
    TurnCredentialPage,
    check_ice_servers,
    welcome_ice_servers,
)
from tests.support.seen import frames_of

CREDENTIAL = {
    "username": "USER",
    "password": "PASS",
    "apiKey": "KEY",
    "expiryInSeconds": 60,
    "label": "a label",
}


def test_a_list_of_servers_both_ways() -> None:
    servers = (
        IceServer(("stun:h:80",)),
        IceServer(("turn:h:80", "turn:h:443?transport=tcp"), "user", "pass"),
    )
    body = turn.ice_server_list(servers)
    assert body == [
        {"urls": "stun:h:80"},
        {
            "urls": ["turn:h:80", "turn:h:443?transport=tcp"],
            "username": "user",
            "credential": "pass",
        },
    ]
    assert turn.parse_ice_servers(body) == servers


def test_a_credential_request_both_ways() -> None:
    for request in (CredentialRequest(), CredentialRequest(60, "a label")):
        assert CredentialRequest.parse(request.body()) == request
    assert CredentialRequest.parse(None) == CredentialRequest()


@pytest.mark.parametrize("expiry", [0, -1, 1.5, "60", True])
def test_a_bad_expiry(expiry: Any) -> None:
    with pytest.raises(FieldError, match="expiryInSeconds"):
        CredentialRequest.parse({"expiryInSeconds": expiry})


def test_a_credential_both_ways_and_unseen() -> None:
    credential = TurnCredential.parse(CREDENTIAL)
    assert credential.body() == CREDENTIAL
    assert repr(credential) == "TurnCredential(expires_in=60, label='a label', expired=False)"
    lasting = TurnCredential.parse({"username": "u", "password": "p"})
    assert (lasting.expires_in, lasting.label, lasting.api_key) == (None, None, None)


def test_a_page_both_ways() -> None:
    pagination = {
        "total_records": 3,
        "current_page": 1,
        "total_pages": 2,
        "next_page": 2,
        "prev_page": None,
    }
    body = {"data": [{**CREDENTIAL, "expired": True}], "pagination": pagination}
    page = TurnCredentialPage.parse(body)
    assert page.body() == body
    assert len(page) == 1
    assert [credential.expired for credential in page] == [True]
    assert (page.total_records, page.next_page, page.prev_page) == (3, 2, None)


@pytest.mark.parametrize(
    ("parse", "body"),
    [
        (turn.parse_ice_servers, None),
        (turn.parse_ice_servers, [{"urls": "http://x"}]),
        (TurnCredential.parse, "text"),
        (TurnCredential.parse, {"username": "u"}),
        (TurnCredentialPage.parse, {"data": {}}),
        (TurnCredentialPage.parse, {"data": []}),
        (TurnCredentialPage.parse, {"data": [], "pagination": {"total_records": 1}}),
    ],
)
def test_malformed_answers(parse: Callable[[object], Any], body: object) -> None:
    with pytest.raises(FieldError):
        parse(body)


def test_ice_servers() -> None:
    def parse(*servers: Any) -> Any:
        return welcome_ice_servers({"iceServers": list(servers)})

    assert parse({"urls": "stun:a"}, {"urls": ["turn:b"], "username": "u", "credential": "c"}) == (
        IceServer(("stun:a",)),
        IceServer(("turn:b",), "u", "c"),
    )
    assert parse() == ()
    assert welcome_ice_servers(None) is None
    assert welcome_ice_servers({"iceServers": {}}) is None
    # One bad entry drops the list.
    good = {"urls": "stun:a"}
    for bad in (
        {},
        7,
        {"urls": "http://x"},
        {"urls": []},
        {"urls": "stun:" + "x" * 600},
        {"urls": "turn:x", "username": 7},
        {"urls": "turn:x", "credential": "x" * 1025},
    ):
        assert parse(good, bad) is None
    assert parse(*[good] * 17) is None
    assert "hush" not in repr(parse({"urls": "turn:x", "username": "u", "credential": "hush"}))


# --- servers that a user gives --------------------------------------------------------

STUN = IceServer(("stun:h:80",))
TURN = IceServer(("turn:h:80?transport=udp", "turns:h"), "user", "HUSHHUSH")


@dataclass
class Described:
    """A server as another library writes it."""

    urls: str | list[str]
    username: str | None = None
    credential: str | None = None


@pytest.mark.parametrize(
    ("given", "servers"),
    [
        ([], ()),
        ("stun:h:80", (STUN,)),
        ({"urls": "stun:h:80"}, (STUN,)),
        (STUN, (STUN,)),
        (Described("stun:h:80"), (STUN,)),
        (["stun:h:80", STUN, {"urls": ["stun:h:80"]}, Described(["stun:h:80"])], (STUN,) * 4),
        ([IceServer("stun:h:80")], (STUN,)),  # type: ignore[arg-type]
        ([IceServer(["stun:h:80"])], (STUN,)),  # type: ignore[arg-type]
        ([TURN.as_dict()], (TURN,)),
        ([Described(list(TURN.urls), TURN.username, TURN.credential)], (TURN,)),
        (iter([TURN]), (TURN,)),
        (("stuns:[2001:db8::1]:5349",), (IceServer(("stuns:[2001:db8::1]:5349",)),)),
    ],
)
def test_servers_are_taken_as_they_are_written_elsewhere(given: Any, servers: Any) -> None:
    assert check_ice_servers(given) == servers


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (7, "list of ICE servers, not int"),
        (b"stun:h", "not bytes"),
        ([None], r"ice_servers\[0\] must be an address .* not NoneType"),
        (["stun:h", 7], r"ice_servers\[1\] .* not int"),
        ([{"urls": "turn:h", "username": 7, "credential": "HUSHHUSH"}], "username must be a str"),
        ([{"urls": "turn:h", "username": "u", "credential": b"HUSHHUSH"}], "credential must be"),
    ],
)
def test_what_is_no_server(given: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words) as caught:
        check_ice_servers(given)
    assert "HUSHHUSH" not in frames_of(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {}, {"url": "stun:h"}, {"urls": None}, {"urls": []}, {"urls": [7]}, IceServer(()),
        "", "h", "stun:", "stun:h:port", "stun:h:80?transport=udp", "http://HUSHHUSH",
        "turn:u:HUSHHUSH@h:80", "turn:h?transport=HUSHHUSH", "turn://HUSHHUSH", " stun:h",
        {"urls": ["stun:h", "HUSHHUSH"], "credential": "HUSHHUSH"},
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_server(given: Any) -> None:
    with pytest.raises(ValueError, match=r"^ice_servers\[0\]: ") as caught:
        check_ice_servers([given])
    assert "HUSHHUSH" not in frames_of(caught.value)
