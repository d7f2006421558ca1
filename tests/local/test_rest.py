"""Test how the bodies of HTTP calls are read, and how calls are answered and refused."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.http_exceptions import BadStatusLine
from aiohttp.test_utils import TestServer

from metered_sync.local.rest import Refusal, answer, read_json, server_logger

LIMIT = 1000


async def echo(request: web.Request) -> web.Response:
    try:
        return answer({"read": await read_json(request, LIMIT)}, 201, X_Header="yes")
    except Refusal as refusal:
        return refusal.response()


def post(data: Any) -> tuple[int, Any, Any]:
    async def run() -> tuple[int, Any, Any]:
        app = web.Application()
        app.router.add_post("/", echo)
        async with TestServer(app) as server, ClientSession() as session:
            body = data() if callable(data) else data
            async with session.post(server.make_url("/"), data=body) as response:
                return response.status, await response.json(), response.headers.get("X-Header")

    return asyncio.run(run())


@pytest.mark.parametrize("value", [None, 7, "é", [1, 2.5], {"a": {"b": None}}])
def test_a_body_is_decoded(value: Any) -> None:
    assert post(json.dumps(value).encode()) == (201, {"read": value}, "yes")


def test_no_body_is_none() -> None:
    assert post(b"")[:2] == (201, {"read": None})


@pytest.mark.parametrize("raw", [b"{", b"NaN", b"[Infinity]", b"\xff", b"[" * 900])
def test_what_is_no_json_is_refused(raw: bytes) -> None:
    status, body, _ = post(raw)
    assert (status, body["error"]) == (400, "invalid_request")


@pytest.mark.parametrize("size", [LIMIT - 2, LIMIT - 1])
@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_are_bounded(size: int, chunked: bool) -> None:
    raw = b'"' + b"x" * size + b'"'

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(raw), 100):
            yield raw[start : start + 100]

    status, body, _ = post(chunks if chunked else raw)
    if len(raw) <= LIMIT:
        assert status == 201
    else:
        assert (status, body["message"]) == (413, f"a body has at most {LIMIT} bytes")


def test_the_log_leaves_out_what_clients_did_wrong() -> None:
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logger = server_logger()
    assert server_logger() is logger
    logger.addHandler(handler)
    try:
        for error in (BadStatusLine("GET /?token=HUSH"), RuntimeError("a real trouble")):
            try:
                raise error
            except Exception:
                logger.exception("Error with ?token=HUSH")
    finally:
        logger.removeHandler(handler)
    assert log.getvalue().count("Error with ?token=…") == 1
    assert "a real trouble" in log.getvalue()
    assert "HUSH" not in log.getvalue()
