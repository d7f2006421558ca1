"""Test that every failure of a REST call becomes an error of its service, without secrets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.http import MAX_RETRY_DELAY
from metered_sync.engine.rest import MAX_BODY_SHOWN, MAX_DETAIL, Rest, Service
from metered_sync.errors import (
    ControlPlaneError,
    RestError,
    SfuConflictError,
    SfuError,
    TurnError,
)
from metered_sync.wire.fields import Fields
from metered_sync.wire.secrets import ScrubbedError
from tests.rules.test_secrets import shown
from tests.support.scripted_http import ScriptedHttp

SECRET = "HUSH-hush/42+"


def service(origin: str, **options: Any) -> Service:
    remedies: dict[int | str, str] = {"no_right": "the key lacks {needs}", 403: "ask the owner"}
    return Service("Client", origin, SfuError, {409: SfuConflictError}, remedies, **options)


@pytest.fixture
def rest(scripted: ScriptedHttp) -> Iterator[Rest]:
    rest = Rest(service(scripted.origin), SECRET)
    yield rest
    rest.close()


def call(rest: Rest, method: str = "GET", timeout: float = 5, **options: Any) -> Any:
    def parse(body: Any) -> int:
        return Fields(body).whole("n")

    return asyncio.run(rest.call(method, "/p?q=1", parse, deadline=Deadline(timeout), **options))


def failed(rest: Rest, **options: Any) -> RestError:
    with pytest.raises(RestError) as caught:
        call(rest, **options)
    return caught.value


def test_an_answer_is_parsed(scripted: ScriptedHttp, rest: Rest) -> None:
    scripted.script = [(200, {}, b'{"n": 7}')]
    assert call(rest, "PUT", body={"a": 1}) == 7
    (asked,) = scripted.asked
    assert (asked.method, asked.path, json.loads(asked.body)) == ("PUT", "/p?q=1", {"a": 1})


def test_a_refusal_says_all_that_is_known(scripted: ScriptedHttp, rest: Rest) -> None:
    body = {"error": "no_right", "message": "not today"}
    scripted.script = [(403, {"Retry-After": "7"}, json.dumps(body).encode())]
    error = failed(rest, what="do it", needs="the right")
    assert str(error) == (
        "Client: do it failed with HTTP 403 (no_right: not today): the key lacks the right; "
        "the service asks to wait 7 s"
    )
    assert type(error) is SfuError
    assert (error.status, error.code, error.retry_after, error.sent) == (403, "no_right", 7.0, True)
    assert (error.endpoint, error.body) == ("GET /p?q=1", body)


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (403, b"", SfuError, "Client: GET /p?q=1 failed with HTTP 403: ask the owner"),
        (409, b'{"error": "busy"}', SfuConflictError, "failed with HTTP 409 (busy)"),
        (404, b"<html>", SfuError, "HTTP 404 (<html>): is the url right?"),
        (500, b"[1]", SfuError, "HTTP 500: the service is in trouble; try again"),
        (302, b"", SfuError, "HTTP 302"),
    ],
)
def test_classes_and_remedies(
    scripted: ScriptedHttp,
    rest: Rest,
    status: int,
    body: bytes,
    kind: type[RestError],
    words: str,
) -> None:
    scripted.script = [(status, {}, body)]
    error = failed(rest)
    assert type(error) is kind
    assert str(error).endswith(words)
    assert error.status == status


def test_an_answer_that_does_not_parse(scripted: ScriptedHttp, rest: Rest) -> None:
    scripted.script = [(200, {}, b'{"n": "seven"}'), (200, {}, b"<html>hello")]
    error = failed(rest, what="count")
    assert str(error) == (
        f"Client: count: the answer from {scripted.origin} is not what the service sends "
        '("n" must be a whole number); is the url right?'
    )
    assert (error.status, error.body) == (200, {"n": "seven"})
    assert failed(rest).body == "<html>hello"


def test_an_answer_that_may_hold_secrets_is_in_no_error(scripted: ScriptedHttp) -> None:
    rest = Rest(service(scripted.origin, secret_answers=True), SECRET)
    scripted.script = [(200, {}, b'{"token": "HUSH"}'), (400, {}, b'{"error": "why"}')]
    error = failed(rest)
    assert error.body is None
    assert "HUSH" not in shown(error)
    traceback = error.__traceback__
    while traceback is not None:  # nor in what a debugger or a crash reporter would show
        for name, value in traceback.tb_frame.f_locals.items():
            assert "HUSH" not in repr(value), (traceback.tb_frame.f_code.co_name, name)
        traceback = traceback.tb_next
    assert failed(rest).body == {"error": "why"}
    rest.close()


def test_long_words_of_a_service_are_cut(scripted: ScriptedHttp, rest: Rest) -> None:
    body = {"error": "e" * 5000, "message": f"Bearer {SECRET} " + "m" * 5000}
    scripted.script = [(400, {}, json.dumps(body).encode())]
    error = failed(rest)
    assert len(str(error)) < MAX_DETAIL + 200
    assert len(error.body) == MAX_BODY_SHOWN + 1
    assert SECRET not in shown(error)


@pytest.mark.parametrize("safe", [True, False])
def test_no_answer(safe: bool) -> None:
    rest = Rest(service("http://127.0.0.1:9"), SECRET, parameter="apiKey")
    error = failed(rest, what="do it", timeout=0.5, safe=safe)
    assert str(error) == (
        "Client: do it: no answer from http://127.0.0.1:9: connection refused; check the url and "
        "the network"
    )
    assert (error.status, error.sent, error.endpoint) == (None, False, "GET /p?q=1")
    assert type(error.__cause__) is ScrubbedError
    assert "Connection refused" in str(error.__cause__)
    assert SECRET not in shown(error)
    assert "HUSH-hush%2F42%2B" not in shown(error)
    rest.close()


def test_an_answer_that_was_lost(scripted: ScriptedHttp, rest: Rest) -> None:
    scripted.script = [(0, {}, b"")] * 5
    error = failed(rest)
    assert error.sent
    assert str(error).endswith("it may have been carried out all the same")
    assert failed(rest, safe=True, timeout=0.2).sent


def test_what_is_safe_is_tried_again(scripted: ScriptedHttp, rest: Rest) -> None:
    wait = str(MAX_RETRY_DELAY + 1)
    scripted.script = [(503, {}, b""), (200, {}, b'{"n": 1}'), (429, {"Retry-After": wait}, b"")]
    assert call(rest, safe=True) == 1
    error = failed(rest, safe=True)
    assert (error.status, error.retry_after) == (429, float(wait))


def test_all_services_share_one_family_of_errors() -> None:
    for kind in (ControlPlaneError, TurnError, SfuError, SfuConflictError):
        error = kind("x", status=404, endpoint="GET /", body={"a": 1})
        assert isinstance(error, RestError)
        assert (error.status, error.endpoint, error.body) == (404, "GET /", {"a": 1})
        assert (error.code, error.sent, error.retry_after) == (None, True, 0.0)
