"""Test that a ticket is of use to the one who made the session, and to nobody else."""

from __future__ import annotations

import pytest

from metered_sync.gate.tickets import Tickets
from metered_sync.wire.sfu import plain_session_id


def test_a_ticket_goes_with_its_session_and_its_peer() -> None:
    tickets = Tickets("secret")
    ticketed = tickets.issue("session-1", "ann", 2000.9)
    assert plain_session_id(ticketed) == "session-1"
    assert tickets.expiry(ticketed, "ann") == 2000
    assert Tickets("secret").expiry(ticketed, "ann") == 2000  # another server of the same app
    assert tickets.expiry(ticketed, "bob") is None
    assert Tickets("another").expiry(ticketed, "ann") is None


@pytest.mark.parametrize("place", range(len("session-1~2000~") + 32))
def test_an_altered_one_is_none(place: int) -> None:
    tickets = Tickets("secret")
    ticketed = tickets.issue("session-1", "ann", 2000)
    altered = "3" if ticketed[place] != "3" else "4"
    assert tickets.expiry(ticketed[:place] + altered + ticketed[place + 1 :], "ann") is None


@pytest.mark.parametrize(
    "text", ["", "session-1", "session-1~2000", "~~", "session-1~2000~" + "A" * 32]
)
def test_what_is_no_ticket(text: str) -> None:
    assert Tickets("secret").expiry(text, "ann") is None


def test_ids_that_look_alike_are_told_apart() -> None:
    tickets = Tickets("secret")
    ticketed = tickets.issue("a", "b:1:c", 2000)
    signature = ticketed.rpartition("~")[2]
    assert tickets.expiry(f"a:5:b~2000~{signature}", "1:c") is None
    # An id that ends like a ticket is the SFU's own affair: the last one counts.
    nested = tickets.issue(ticketed, "bob", 3000)
    assert plain_session_id(nested) == ticketed
    assert tickets.expiry(nested, "bob") == 3000
