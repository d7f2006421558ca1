"""Test that the SFU's refusals become the errors that say what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from metered_sync import SfuAuthError, SfuConflictError, SfuError, SfuNotFoundError
from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.sfu.calls import SfuCalls
from metered_sync.wire import sfu as wire
from tests.support.scripted_http import ScriptedHttp


@pytest.fixture
def calls(scripted: ScriptedHttp) -> Iterator[SfuCalls]:
    made = SfuCalls("client", scripted.origin, "app", "secret")
    yield made
    made.close()


def refusal(calls: SfuCalls, endpoint: wire.Endpoint, session_id: str = "") -> SfuError:
    with pytest.raises(SfuError) as caught:
        asyncio.run(calls.ask(endpoint, lambda body: body, Deadline(10), session_id=session_id))
    return caught.value


@pytest.mark.parametrize(
    ("status", "session_id", "kind"),
    [
        (401, "", SfuAuthError),
        (403, "s", SfuAuthError),
        (404, "s", SfuNotFoundError),
        (409, "s", SfuConflictError),
        (418, "s", SfuError),
    ],
)
def test_errors_by_status(
    scripted: ScriptedHttp, calls: SfuCalls, status: int, session_id: str, kind: type[SfuError]
) -> None:
    scripted.script = [(status, {}, b'{"error": "code", "message": "words"}')]
    endpoint = wire.TRACKS if session_id else wire.SESSIONS
    error = refusal(calls, endpoint, session_id)
    assert (type(error), error.status, error.code) == (kind, status, "code")


@pytest.mark.parametrize("endpoint", [wire.SESSIONS, wire.NEW])
def test_nothing_but_the_app_can_be_unknown_where_no_session_is_named(
    scripted: ScriptedHttp, calls: SfuCalls, endpoint: Any
) -> None:
    scripted.script = [(404, {}, b'{"error": "not_found"}')]
    error = refusal(calls, endpoint)
    assert (type(error), error.status, error.code) == (SfuAuthError, 404, "not_found")
    assert "check the app id and the secret, and that the url is right" in str(error)
    assert error.endpoint.endswith(endpoint.path("app", ""))
