"""Make a REST call, and turn every failure of it into one family of errors.

The control plane, the TURN service and the SFU are called through :meth:`Rest.call`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.http import Answer, Http, HttpError
from metered_sync.errors import RestError
from metered_sync.wire.fields import FieldError, parse_error
from metered_sync.wire.secrets import scrub, scrubbed

__all__ = ["Rest", "Service"]

T = TypeVar("T")
MAX_DETAIL = 300
"""Characters of the service's own words in an error's message."""
MAX_BODY_SHOWN = 2000
"""Characters of an answer's JSON that an error carries as it came; of more, an excerpt."""
_TROUBLE = "the service is in trouble; try again"
_REMEDIES = {
    404: "is the url right?",
    413: "send less at once",
    429: "call less often",
    500: _TROUBLE,
    502: _TROUBLE,
    503: _TROUBLE,
    504: _TROUBLE,
}
"""Remedies by HTTP status, where the service has none of its own."""


@dataclass(frozen=True)
class Service:
    """A REST service as one client sees it: its origin, its errors and their remedies."""

    label: str
    """The client's name in errors."""
    origin: str
    error: type[RestError]
    errors: Mapping[int, type[RestError]] = field(default_factory=dict)
    """Errors of their own for some HTTP statuses."""
    remedies: Mapping[int | str, str] = field(default_factory=dict)
    """Remedies by HTTP status, or by the service's code. ``{needs}`` stands for the call's."""
    secret_answers: bool = False
    """Whether granted calls answer with secrets, so that no error may carry such an answer."""


class Rest:
    """Calls to one service with one secret, from any thread and in forked children.

    Args:
        service: The service.
        secret: Sent as a bearer token,
        parameter: or as this parameter of the query.
        ca_file: The certificates that are trusted; else the environment's.
    """

    def __init__(
        self,
        service: Service,
        secret: str,
        *,
        parameter: str | None = None,
        ca_file: str | None = None,
    ) -> None:
        self._service = service
        self._http = Http(service.origin, secret, parameter=parameter, ca_file=ca_file)

    def close(self) -> None:
        """Close idle connections. Calls under way go on to their end."""
        self._http.close()

    async def call(
        self,
        method: str,
        path: str,
        parse: Callable[[Any], T],
        *,
        deadline: Deadline,
        what: str = "",
        body: Any = None,
        safe: bool = False,
        needs: str = "the permission",
    ) -> T:
        """Make a call and return its parsed answer.

        Args:
            method: The HTTP method.
            path: The path, with a query where there is one.
            parse: Takes the decoded body of a 2xx answer; may raise ``FieldError``.
            deadline: Bounds the call and its repetitions; the caller cancels it.
            what: What is being done, for errors; method and path unless given.
            body: The request's body, for JSON.
            safe: Whether it may be carried out twice; then failures are tried again.
            needs: What the key must have for it.

        Raises:
            RestError: No answer, a refusal, or an answer that ``parse`` does not take; of the
                service's own class.
        """
        endpoint = f"{method} {path}"
        what = f"{self._service.label}: {what or endpoint}"
        # An error is raised here, where no local variable holds what the service answered.
        try:
            answer = self._http.fetch(method, path, json=body, deadline=deadline, safe=safe)
            outcome = self._judge(await answer, parse, what, endpoint, needs)
        except HttpError as failure:
            outcome = self._unanswered(failure, what, endpoint, safe)
        if isinstance(outcome, RestError):
            raise outcome
        return outcome

    def _judge(
        self, answer: Answer, parse: Callable[[Any], T], what: str, endpoint: str, needs: str
    ) -> T | RestError:
        """Return the parsed answer, or the error that it makes."""
        if not answer.ok:
            return self._refusal(answer, what, endpoint, needs)
        try:
            return parse(answer.body)
        except FieldError as error:
            return self._service.error(
                f"{what}: the answer from {self._service.origin} is not what the service sends "
                f"({error}); is the url right?",
                status=answer.status,
                endpoint=endpoint,
                body=None if self._service.secret_answers else self._excerpt(answer.body),
            )

    def _refusal(self, answer: Answer, what: str, endpoint: str, needs: str) -> RestError:
        service, status = self._service, answer.status
        code, message = parse_error(answer.body)
        words = (answer.body,) if isinstance(answer.body, str) else (code, message)
        detail = scrub(": ".join(word for word in words if word))[:MAX_DETAIL]
        remedy = service.remedies.get(code or "") or service.remedies.get(status)
        remedy = (remedy or _REMEDIES.get(status, "")).replace("{needs}", needs)
        wait = f"the service asks to wait {answer.retry_after:g} s" if answer.retry_after else ""
        advice = "; ".join(text for text in (remedy, wait) if text)
        return service.errors.get(status, service.error)(
            f"{what} failed with HTTP {status}"
            + (f" ({detail})" if detail else "")
            + (f": {advice}" if advice else ""),
            status=status,
            code=None if code is None else scrub(code)[:MAX_DETAIL],
            retry_after=answer.retry_after,
            endpoint=endpoint,
            body=self._excerpt(answer.body),
        )

    def _unanswered(self, failure: HttpError, what: str, endpoint: str, safe: bool) -> RestError:
        if safe or not failure.sent:
            remedy = "check the url and the network"
        else:
            remedy = "it may have been carried out all the same"
        error = self._service.error(
            f"{what}: no answer from {self._service.origin}: {failure}; {remedy}",
            sent=failure.sent,
            endpoint=endpoint,
        )
        error.__cause__ = failure.__cause__
        return error

    def _excerpt(self, body: Any) -> Any:
        """Return an answer's body as an error may carry it: without secrets, and not too much."""
        body = scrubbed(body)
        text = body if isinstance(body, str) else json.dumps(body)
        shown = self._http.hide(text)
        if shown != text:  # it repeats our secret, in a form of its own
            body = shown
        return body if len(shown) <= MAX_BODY_SHOWN else shown[:MAX_BODY_SHOWN] + "…"
