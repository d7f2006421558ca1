"""Test connectivity checks and their answers against aioice's STUN."""

import dataclasses

import pytest
from aioice import stun as other

from metered_sync.local.sfu import stun

KEY = b"the-password"


def request(**attributes: object) -> bytes:
    """A check as aioice, which is not ours, makes it."""
    message = other.Message(
        message_method=other.Method.BINDING,
        message_class=other.Class.REQUEST,
        transaction_id=b"0123456789ab",
        attributes={"USERNAME": "ours:theirs", "PRIORITY": 5, **attributes},
    )
    message.add_message_integrity(KEY)
    return bytes(message)


def test_a_check_is_read():
    check = stun.parse_check(request(**{"USE-CANDIDATE": None, "ICE-CONTROLLING": 7}))
    assert check is not None
    assert check.username == "ours:theirs"
    assert check.nominated
    assert not check.controlled
    assert stun.is_authentic(check, KEY.decode())
    assert not stun.is_authentic(check, "another")
    assert "integrity" not in repr(check)


def test_an_altered_check_is_not_authentic():
    data = request()
    check = stun.parse_check(data)
    assert check is not None
    forged = dataclasses.replace(check, signed=check.signed.replace(b"theirs", b"thairs"))
    assert not stun.is_authentic(forged, KEY.decode())


def test_what_follows_the_integrity_does_not_count():
    data = request()
    fingerprint = data[-8:]
    extra = b"\x00\x25\x00\x00"
    cut = data[:-8] + extra
    check = stun.parse_check(cut[:2] + (len(cut) - 20).to_bytes(2, "big") + cut[4:])
    assert fingerprint
    assert check is not None
    assert not check.nominated


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(20),
        request()[:-1],
        request() + b"x",
        request()[:-1] + b"\xff",
        b"\x01\x01" + request()[2:],
        bytes(other.Message(other.Method.BINDING, other.Class.REQUEST)),
    ],
    ids=["empty", "zeros", "short", "long", "fingerprint", "response", "unsigned"],
)
def test_anything_else_is_ignored(data):
    assert stun.parse_check(data) is None


@pytest.mark.parametrize("address", [("127.0.0.1", 4711), ("2001:db8::7", 65000)])
def test_success_is_understood_by_others(address):
    check = stun.parse_check(request())
    assert check is not None
    answer = other.parse_message(stun.success(check, address, KEY.decode()))
    assert answer.message_class == other.Class.RESPONSE
    assert answer.transaction_id == b"0123456789ab"
    assert answer.attributes["XOR-MAPPED-ADDRESS"] == address
    assert "MESSAGE-INTEGRITY" in answer.attributes
    assert "FINGERPRINT" in answer.attributes


def test_failure_is_understood_by_others():
    check = stun.parse_check(request(**{"ICE-CONTROLLED": 7}))
    assert check is not None
    assert check.controlled
    answer = other.parse_message(stun.failure(check, stun.ROLE_CONFLICT, KEY.decode()))
    assert answer.attributes["ERROR-CODE"] == (487, "Role Conflict")
