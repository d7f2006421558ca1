"""List and search the tracks of an app at a scripted SFU."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from metered_sync import SfuError, SfuNotFoundError, TrackInfo
from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.sfu.calls import SfuCalls
from metered_sync.engine.sfu.directory import Directory
from metered_sync.wire.sfu import SessionInfo, sessions_body, tracks_body
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.support.scripted_http import ScriptedHttp

T = TypeVar("T")
Run = Callable[[Callable[[Directory], Coroutine[Any, Any, T]]], T]
QUICK = replace(DEFAULT_TIMINGS, request_interval=0.0, poll=0.01, poll_max=0.02)


@pytest.fixture
def run(scripted: ScriptedHttp) -> Iterator[Run[Any]]:
    """Return a function that runs a coroutine function with a directory."""
    calls = SfuCalls("client", scripted.origin, "app", "secret")
    yield lambda function: asyncio.run(function(Directory(calls, QUICK)))
    calls.close()


def lists(scripted: ScriptedHttp, *answers: Any) -> None:
    """Have the SFU list sessions (pairs of id and state) or tracks; ``None``: 404."""
    for answer in answers:
        if answer is None:
            scripted.script.append((404, {}, b'{"error": "no such session"}'))
            continue
        is_sessions = bool(answer) and isinstance(answer[0], tuple)
        body = (
            sessions_body([SessionInfo(id_, state) for id_, state in answer], "app")
            if is_sessions
            else tracks_body(answer, "app")
        )
        headers = {"Content-Type": "application/json"}
        scripted.script.append((200, headers, json.dumps(body).encode()))


def track(session: str, track: str = "t", name: str | None = None) -> TrackInfo:
    return TrackInfo(session, track, name, "video")


def asked(scripted: ScriptedHttp) -> list[str]:
    """Return whose tracks were asked for, in order; ``""``: the sessions."""
    parts = [request.path.split("/") for request in scripted.asked]
    return ["" if path[-1] == "sessions" else path[-2] for path in parts]


def test_what_a_session_publishes(scripted: ScriptedHttp, run: Run[Any]) -> None:
    lists(scripted, [track("a")], [], None)

    async def look(directory: Directory) -> list[Any]:
        return [await directory.published("a", Deadline(5)) for _ in range(3)]

    assert run(look) == [[track("a")], [], None]


def test_a_search_begins_with_the_newest_session(scripted: ScriptedHttp, run: Run[Any]) -> None:
    sessions = [("old", "connected"), ("own", "connected"), ("gone", "failed"), ("new", "new")]
    lists(scripted, sessions, [track("new")], [track("old")], [track("own")])

    async def search(directory: Directory) -> list[str]:
        return [one.session_id async for one in directory.search(Deadline(5), ["own"])]

    assert run(search) == ["new", "old", "own"]
    assert asked(scripted) == ["", "new", "old", "own"]


def test_a_session_that_ends_during_a_search_is_left_out(
    scripted: ScriptedHttp, run: Run[Any]
) -> None:
    lists(scripted, [("a", "connected"), ("b", "connected")], None, [track("a")])

    async def search(directory: Directory) -> list[str]:
        return [one.session_id async for one in directory.search(Deadline(5))]

    assert run(search) == ["a"]


def test_waiting_goes_on_until_a_track_matches(scripted: ScriptedHttp, run: Run[Any]) -> None:
    one = [("a", "connected")]
    lists(scripted, one, [], one, [track("a", "1", "x")], one, [track("a", "2", "y")])

    async def wait(directory: Directory) -> TrackInfo:
        return await directory.wait(lambda found: found.name == "y", Deadline(20))

    assert run(wait).track_id == "2"
    assert not scripted.script


def test_waiting_for_a_track_of_one_session_asks_for_no_other(
    scripted: ScriptedHttp, run: Run[Any]
) -> None:
    lists(scripted, [], [track("a", "1")], None)

    async def wait(directory: Directory) -> TrackInfo:
        return await directory.wait(lambda _: True, Deadline(20), session_id="a")

    assert run(wait).track_id == "1"
    assert asked(scripted) == ["a", "a"]
    with pytest.raises(SfuNotFoundError):
        run(wait)


def test_searches_share_one_pace(scripted: ScriptedHttp) -> None:
    calls = SfuCalls("client", scripted.origin, "app", "secret")
    directory = Directory(calls, replace(DEFAULT_TIMINGS, request_interval=0.05))
    lists(scripted, *[[track("a")]] * 6)

    async def both() -> None:
        async def look() -> None:
            for _ in range(3):
                await directory.published("a", Deadline(10))

        await asyncio.gather(look(), look())

    began = time.monotonic()
    asyncio.run(both())
    calls.close()
    assert time.monotonic() - began > 0.24  # the first one went at once


def test_an_error_other_than_not_found_is_raised(scripted: ScriptedHttp, run: Run[Any]) -> None:
    scripted.script.append((403, {}, b"{}"))

    async def look(directory: Directory) -> Any:
        return await directory.published("a", Deadline(5))

    with pytest.raises(SfuError, match="403"):
        run(look)
