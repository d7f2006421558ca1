"""Test what the console's journal keeps, and what it leaves out."""

from __future__ import annotations

import json

from metered_sync.local.console.journal import MAX_ENTRIES, MAX_KEPT, MAX_TEXT, Journal
from metered_sync.local.console.patches import MAX_FIRST_ROWS, MAX_ROWS, MAX_SIZE, PatchMaker


def patch(maker: PatchMaker) -> dict[str, object]:
    text = maker.next()
    assert text is not None
    assert text.startswith(b"data: ")
    assert text.endswith(b"\n\n")
    assert text.count(b"\n") == 2
    value: dict[str, object] = json.loads(text[6:])
    return value


def test_it_is_bounded_by_number_and_by_size() -> None:
    journal = Journal()
    for _ in range(MAX_ENTRIES + 10):
        journal.frame("a", "short", sent=True)
    entries = list(journal.since(0))
    assert len(entries) == MAX_ENTRIES
    assert entries[0].number == MAX_ENTRIES + 10
    for _ in range(MAX_ENTRIES):
        journal.frame("a", b"x" * 65536, sent=False)
    entries = list(journal.since(0))
    assert sum(len(entry.text) for entry in entries) <= MAX_KEPT
    assert {(len(entry.text), entry.size) for entry in entries} == {(MAX_TEXT, 65536)}
    assert len(list(journal.since(journal.last - 3))) == 3


def test_refusals_are_kept_apart() -> None:
    journal = Journal()
    journal.refused("a", '{"type":"publish"}', "invalid_channel", "why it is")
    journal.refused("a", b"\xff", "malformed_message", "a binary frame")
    journal.watching = True
    journal.frame("b", '{"type":"send"}', sent=True)
    journal.refused("b", '{"type":"send"}', "missing_data", "what for")
    assert [(e.peer, e.why) for e in journal.since(0)] == [
        ("b", "what for"),
        ("a", "a binary frame"),
        ("a", "why it is"),
    ]
    for _ in range(MAX_ENTRIES):
        journal.frame("c", "more", sent=True)
    assert [entry.error for entry in journal.refused_last] == [
        "invalid_channel",
        "malformed_message",
        "missing_data",
    ]
    assert journal.refusals == 3
    journal.clear()
    assert (journal.refusals, len(journal.refused_last), list(journal.since(0))) == (0, 0, [])


def test_credentials_of_a_welcome_are_left_out() -> None:
    journal = Journal()
    server = {"urls": "turn:x", "username": "u", "credential": "hidden"}
    welcome = {"type": "welcome", "peerId": "a", "metadata": {"iceServers": [server]}}
    journal.frame("a", json.dumps(welcome, separators=(",", ":")).encode(), sent=False)
    (entry,) = journal.since(0)
    assert "hidden" not in json.dumps(entry.body())
    assert "turn:x" in json.dumps(entry.body())


def test_a_patch_has_refusals_first_and_tells_what_it_left_out() -> None:
    journal = Journal()
    journal.watching = True
    state = {"x": 1}
    maker = PatchMaker(journal, lambda: dict(state))
    assert patch(maker) == {"x": 1, "first": True}
    assert maker.next() is None
    journal.frame("a", "0", sent=True)
    journal.refused("a", "0", "bad", "why")
    for number in range(1, 200):
        journal.frame("a", str(number), sent=True)
    news = patch(maker)
    rows = news["log"]
    assert isinstance(rows, list)
    assert [row["text"] for row in rows] == ["0", *map(str, range(200 - MAX_ROWS + 1, 200))]
    assert news["skipped"] == 200 - MAX_ROWS
    assert set(news) == {"log", "skipped"}
    for number in range(200):
        journal.frame("a", b'{"type":"ack","requestId":"1"}', sent=False)
        if number < 10:
            journal.frame("a", str(number), sent=True)
    rows = patch(maker)["log"]
    assert isinstance(rows, list)
    assert [row["text"] for row in rows if "ack" not in row["text"]] == [*map(str, range(10))]
    for _ in range(40):
        journal.frame("a", "\x00" * 16000, sent=True)
    rows = patch(maker)["log"]
    assert isinstance(rows, list)
    assert sum(len(row["text"]) for row in rows) <= MAX_SIZE
    late = patch(PatchMaker(journal, dict))["log"]
    assert isinstance(late, list)
    assert len(late) <= MAX_FIRST_ROWS
    assert late[0]["why"] == "why"


def test_lone_surrogates_and_line_ends_stay_in_one_event() -> None:
    journal = Journal()
    journal.watching = True
    maker = PatchMaker(journal, lambda: {"name": "\ud800\u2028\r\n"})
    journal.frame("\udfff", '"\n\r\u2029"', sent=True)
    got = patch(maker)
    assert got["name"] == "\ud800\u2028\r\n"
    rows = got["log"]
    assert isinstance(rows, list)
    assert (rows[0]["peer"], rows[0]["text"]) == ("\udfff", '"\n\r\u2029"')
