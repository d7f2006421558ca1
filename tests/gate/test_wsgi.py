"""Test the gate as a WSGI application, mounted below another path."""

from __future__ import annotations

import io
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

from metered_sync import SfuGate, mint_token
from metered_sync.gate.wsgi import MAX_READ
from metered_sync.local import LocalCloud


def ask(gate: SfuGate, **environ: Any) -> tuple[str, dict[str, str], bytes]:
    """Return status, headers and body of one request; the application is checked, too."""
    given: dict[str, Any] = {"SCRIPT_NAME": "/sfu", **environ}
    body = given.pop("body", b"")
    setup_testing_defaults(given)
    given.setdefault("QUERY_STRING", "")
    given |= {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
    started: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        started.append((status, dict(headers)))
        return lambda _: None

    answer = validator(gate.wsgi)(given, start)
    content = b"".join(answer)
    getattr(answer, "close", lambda: None)()
    return (*started[0], content)


def test_it_answers_below_its_own_address(shared_cloud: LocalCloud) -> None:
    gate = SfuGate(
        shared_cloud.sfu_app_id,
        shared_cloud.sfu_secret,
        {shared_cloud.key_id: shared_cloud.key_secret},
        url=shared_cloud.http_url,
    )
    token = mint_token(shared_cloud.key_id, shared_cloud.key_secret, peer_id="ann")
    bearer = {"HTTP_AUTHORIZATION": f"Bearer {token}"}
    status, headers, body = ask(gate, PATH_INFO="/sessions", **bearer)
    assert status == "403 Forbidden"
    assert headers["Content-Length"] == str(len(body))
    assert ask(gate, PATH_INFO="/sessions")[0] == "401 Unauthorized"
    assert ask(gate, PATH_INFO="/session/x/tracks", **bearer)[0] == "404 Not Found"
    assert ask(gate, PATH_INFO="/session/\xc3\xa9/tracks", **bearer)[0] == "404 Not Found"
    post = {"REQUEST_METHOD": "POST", "PATH_INFO": "/session/new", "CONTENT_TYPE": "text/plain"}
    assert ask(gate, body=b"{}", **post, **bearer)[0] == "400 Bad Request"
    large = ask(gate, body=b" " * (MAX_READ + 10), **post, **bearer)
    assert large[0].startswith("413 ")
    preflight = ask(gate, REQUEST_METHOD="OPTIONS", PATH_INFO="/session/new")
    assert (preflight[0], preflight[2]) == ("204 No Content", b"")
    gate.close()
