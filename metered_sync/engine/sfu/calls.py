"""The SFU's seven HTTP calls, and what their failures mean. Needs no WebRTC."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.http import Answer, Http, HttpError
from metered_sync.errors import SfuAuthError, SfuConflictError, SfuError, SfuNotFoundError
from metered_sync.wire import sfu as wire
from metered_sync.wire.fields import FieldError
from metered_sync.wire.secrets import scrub, scrubbed

__all__ = ["SfuCalls"]

T = TypeVar("T")
DETAIL = 300
"""Characters of the SFU's own words in an error's message."""
BODY = 2000
"""Characters of an answer, as JSON, that an error carries as it came; of more, an excerpt."""


class SfuCalls:
    """The calls to one app, with its secret."""

    def __init__(self, label: str, origin: str, app_id: str, secret: str) -> None:
        self._label = label
        self._origin = origin
        self._app_id = app_id
        self._http = Http(origin, secret)

    def close(self) -> None:
        """Close idle connections."""
        self._http.close()

    async def send(
        self,
        call: wire.Endpoint,
        deadline: Deadline,
        *,
        session_id: str = "",
        body: Any = None,
    ) -> Answer:
        """Make a call and return its answer, a 2xx.

        Raises:
            SfuError: No answer, or another status; its class and message tell which.
        """
        path = call.path(self._app_id, session_id)
        endpoint = f"{call.method} {path}"
        try:
            answer = await self._http.fetch(
                call.method, path, json=body, deadline=deadline, safe=call.safe
            )
        except HttpError as failure:
            raise SfuError(
                f"{self._label}: {endpoint} at {self._origin}: {failure}; check the url "
                "and that the SFU runs",
                endpoint=endpoint,
            ) from None
        if answer.ok:
            return answer
        kind, remedy = _STATUS.get(answer.status, (SfuError, ""))
        texts = wire.parse_error(answer.body)
        if isinstance(answer.body, str):
            texts = (answer.body, None)
        detail = scrub(": ".join(text for text in texts if text))[:DETAIL]
        raise kind(
            f"{self._label}: {endpoint} failed with HTTP {answer.status}"
            + (f" ({detail})" if detail else "")
            + (f": {remedy}" if remedy else ""),
            status=answer.status,
            endpoint=endpoint,
            body=_excerpt(answer.body),
        )

    async def ask(
        self,
        call: wire.Endpoint,
        parse: Callable[[object], T],
        deadline: Deadline,
        *,
        session_id: str = "",
        body: Any = None,
    ) -> T:
        """Make a call and return its answer, parsed.

        Raises:
            SfuError: As :meth:`send`, or the answer is not what an SFU sends.
        """
        answer = await self.send(call, deadline, session_id=session_id, body=body)
        try:
            return parse(answer.body)
        except FieldError as error:
            raise SfuError(
                f"{self._label}: the answer to {call.method} {call.route} is not what an SFU "
                f"sends ({error}); is the url right?",
                status=answer.status,
                endpoint=f"{call.method} {call.path(self._app_id, session_id)}",
                body=_excerpt(answer.body),
            ) from None


def _excerpt(body: Any) -> Any:
    """Return an answer's body as an error may carry it: without secrets, and not too much."""
    body = scrubbed(body)
    text = body if isinstance(body, str) else json.dumps(body)
    return body if len(text) <= BODY else text[:BODY] + "…"


_STATUS: dict[int, tuple[type[SfuError], str]] = {
    401: (SfuAuthError, "check the app id and the secret"),
    403: (SfuAuthError, "check the app id and the secret"),
    404: (SfuNotFoundError, "no such app, session or track (any more)"),
    409: (SfuConflictError, "another negotiation of the session is under way; try again"),
}
