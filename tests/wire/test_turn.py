"""Test the bodies of the TURN service's calls in both directions, and lists of ICE servers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from metered_sync import IceServer
from metered_sync.wire import turn
from metered_sync.wire.fields import FieldError
from metered_sync.wire.turn import (
    CredentialRequest,
    TurnCredential,
    TurnCredentialPage,
    welcome_ice_servers,
)

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
