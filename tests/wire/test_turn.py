from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from metered_sync import IceServer
from metered_sync.wire import turn
from metered_sync.wire.bodies import BodyError
from metered_sync.wire.turn import CredentialRequest, TurnCredential, TurnCredentialPage

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
    assert turn.parse_ice_server_list(body) == servers


def test_a_credential_request_both_ways() -> None:
    for request in (CredentialRequest(), CredentialRequest(60, "a label")):
        assert CredentialRequest.parse(request.body()) == request
    assert CredentialRequest.parse(None) == CredentialRequest()


@pytest.mark.parametrize("expiry", [0, -1, 1.5, "60", True])
def test_a_bad_expiry(expiry: Any) -> None:
    with pytest.raises(BodyError, match="expiryInSeconds"):
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
        (turn.parse_ice_server_list, None),
        (turn.parse_ice_server_list, [{"urls": "http://x"}]),
        (TurnCredential.parse, "text"),
        (TurnCredential.parse, {"username": "u"}),
        (TurnCredentialPage.parse, {"data": {}}),
        (TurnCredentialPage.parse, {"data": []}),
        (TurnCredentialPage.parse, {"data": [], "pagination": {"total_records": 1}}),
    ],
)
def test_malformed_answers(parse: Callable[[object], Any], body: object) -> None:
    with pytest.raises(BodyError):
        parse(body)
