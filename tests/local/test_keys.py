"""Test who is identified by which key or token, and what is refused at which stage."""

from __future__ import annotations

import time

import pytest

from metered_sync.local.keys import KeyRing, PublishableKey, SecretKey, TurnedAway
from metered_sync.local.rest import Refusal
from metered_sync.wire.limits import CLOSE_INVALID_TOKEN, CLOSE_TOKEN_EXPIRED
from metered_sync.wire.tokens import Claims, Grant, sign_claims

SECRETS = ["sk_secret_" + digit * 32 for digit in "123"]
PAIR = SecretKey("sk_id_1", SECRETS[0])
NARROW = SecretKey("sk_id_2", SECRETS[1], Grant((("a/*",),), frozenset(("publish", "send"))))


@pytest.fixture
def ring() -> KeyRing:
    ring = KeyRing([PublishableKey("pk_live_1")], [PAIR])
    ring.add(PublishableKey("pk_live_page", allowed_origins=("https://good",)))
    ring.add(NARROW)
    return ring


def token(
    pair: SecretKey, *, lives: float = 60, secret: str | None = None, **claims: object
) -> str:
    now = time.time()
    made = Claims("ann", now + lives, **claims)  # type: ignore[arg-type]
    return sign_claims(made, pair.id, secret or pair.secret, issued_at=now)


def test_a_publishable_key_makes_a_peer_of_its_own_each_time(ring: KeyRing) -> None:
    first, second = (ring.identify("pk_live_1", None, None) for _ in range(2))
    assert first.peer_id != second.peer_id
    assert first.grant == Grant()
    assert first.expires_at is None


def test_a_token_says_who_connects_and_narrows_its_keys_rights(ring: KeyRing) -> None:
    claims = {"channels": ("a/b", "c"), "metadata": {"m": 1}, "peer_metadata": {"p": 1}}
    identity = ring.identify(None, token(NARROW, **claims), None)
    assert identity.peer_id == "ann"
    assert (identity.metadata, identity.peer_metadata) == ({"m": 1}, {"p": 1})
    assert identity.expires_at == pytest.approx(time.time() + 60, abs=2)
    grant = identity.grant
    assert [grant.covers(name) for name in ("a/b", "a/c", "c")] == [True, False, False]
    assert grant.actions == {"publish", "send"}


def test_a_token_wins_over_a_key(ring: KeyRing) -> None:
    assert ring.identify("pk_live_1", token(PAIR), None).peer_id == "ann"


@pytest.mark.parametrize(
    ("key", "given", "origin", "code"),
    [
        (None, None, None, "unauthorized"),
        (None, "not.a.token", None, "invalid_token"),
        ("pk_live_page", None, "https://bad", "origin_not_allowed"),
    ],
)
def test_what_is_not_even_upgraded(
    ring: KeyRing, key: str | None, given: str | None, origin: str | None, code: str
) -> None:
    with pytest.raises(Refusal) as caught:
        ring.identify(key, given, origin)
    assert (caught.value.status, caught.value.code) == (401, code)


@pytest.mark.parametrize("origin", ["https://good", None])
def test_origins_that_may_use_a_key(ring: KeyRing, origin: str | None) -> None:
    assert ring.identify("pk_live_page", None, origin).grant == Grant()
    assert ring.identify("pk_live_1", None, "https://anywhere").grant == Grant()


def test_what_is_closed_after_the_upgrade(ring: KeyRing) -> None:
    for key, given, code in (
        ("pk_live_unknown", None, CLOSE_INVALID_TOKEN),
        (None, token(SecretKey("sk_id_other", SECRETS[0])), CLOSE_INVALID_TOKEN),
        (None, token(PAIR, secret=SECRETS[2]), CLOSE_INVALID_TOKEN),
        (None, token(PAIR, lives=-1), CLOSE_TOKEN_EXPIRED),
    ):
        with pytest.raises(TurnedAway) as caught:
            ring.identify(key, given, None)
        assert caught.value.code == code


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_bearer_shows_the_pair(ring: KeyRing, scheme: str) -> None:
    assert ring.bearer(f"{scheme} sk_id_1:{SECRETS[0]}") is PAIR
    assert ring.bearer(f"{scheme}  sk_id_2:{SECRETS[1]} ") is NARROW


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer :",
        "Bearer sk_id_1",
        "Bearer sk_id_1:",
        f"Bearer sk_id_1:{SECRETS[1]}",
        "Bearer sk_id_9:",
        f"Basic sk_id_1:{SECRETS[0]}",
        "Bearer sk_id_1:\udcff",
    ],
)
def test_one_answer_for_whatever_is_wrong_with_a_bearer(ring: KeyRing, header: str) -> None:
    with pytest.raises(Refusal, match="missing, malformed or wrong") as caught:
        ring.bearer(header)
    assert (caught.value.status, caught.value.code) == (401, "unauthorized")


def test_secrets_are_not_shown() -> None:
    assert SECRETS[0] not in repr(PAIR)
    assert "pk_live_1" not in repr(PublishableKey("pk_live_1"))
