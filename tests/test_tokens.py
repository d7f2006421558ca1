"""Sign tokens with ``mint_token``; have it refuse those that cannot be."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

from metered_sync import mint_token
from metered_sync.wire.tokens import parse_claims
from tests.rules.test_secrets import shown

KEY_ID, SECRET = "sk_id_1234", "sk_secret_HUSHHUSH" + "x" * 30


def mint(**claims: Any) -> str:
    return mint_token(KEY_ID, SECRET, **{"peer_id": "alice", **claims})


def test_any_iterable_will_do_for_a_list() -> None:
    token = mint(channels=(name for name in ("a", "b/*")), permissions=iter(["send"]))
    claims = parse_claims(token, SECRET)
    assert (claims.channels, claims.permissions) == (("a", "b/*"), ("send",))


def test_a_lifetime_of_its_own() -> None:
    for ttl in (1, 0.5, 10 * 365 * 86400):  # the service limits those that it signs itself
        left = parse_claims(mint(ttl=ttl), SECRET).expires_at - time.time()
        assert ttl - 10 < left <= ttl


@pytest.mark.parametrize(
    ("claims", "kind", "words"),
    [
        ({"peer_id": "x" * 129}, ValueError, "peer id"),
        ({"peer_id": "Ännchen"}, ValueError, "ASCII"),
        ({"channels": "room"}, TypeError, "list of strings"),
        ({"channels": 7}, TypeError, "list of strings"),
        ({"channels": [7]}, ValueError, "list of strings"),
        ({"channels": ["a"] * 101}, ValueError, "100"),
        ({"channels": [""]}, ValueError, "empty"),
        ({"channels": ["rooms", "_METERED/x"]}, ValueError, "reserve"),
        ({"permissions": b"send"}, TypeError, "list of strings"),
        ({"permissions": ["speak"]}, ValueError, "speak"),
        ({"metadata": {"x": "y" * 8192}}, ValueError, "8192"),
        ({"metadata": "x"}, ValueError, "mapping"),
        ({"peer_metadata": {"x": "é" * 2048}}, ValueError, "4096"),
        ({"peer_metadata": {"x": {1, 2}}}, TypeError, "JSON"),
        ({"ttl": 0}, ValueError, "ttl"),
        ({"ttl": math.inf}, ValueError, "ttl"),
        ({"ttl": True}, ValueError, "ttl"),
        ({"ttl": "600"}, ValueError, "ttl"),
    ],
)
def test_mistakes_are_told_before_anything_is_signed(
    claims: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        mint(**claims)
    assert "HUSHHUSH" not in shown(caught.value)


@pytest.mark.parametrize(
    ("key_id", "secret", "words"),
    [
        ("", SECRET, "key_id must be"),
        (None, SECRET, "key_id must be"),
        (KEY_ID, "", "secret must be"),
        (SECRET, KEY_ID, "swapped"),
        (KEY_ID, "pk_live_HUSHHUSH", "publishable"),
        ("pk_live_HUSHHUSH", SECRET, "publishable"),
        (KEY_ID, SECRET + "\n", "line break"),
    ],
)
def test_keys_of_another_kind(key_id: Any, secret: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        mint_token(key_id, secret, peer_id="alice")
    assert "HUSHHUSH" not in shown(caught.value)
