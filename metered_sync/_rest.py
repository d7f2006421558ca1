"""What the blocking clients of REST APIs share: one call, told plainly when it fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NoReturn, TypeVar

from metered_sync.bridge import engines
from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.http import Answer, Http, HttpError
from metered_sync.errors import ClosedError, RestError
from metered_sync.wire.fields import FieldError, parse_error
from metered_sync.wire.secrets import scrub

__all__ = ["RestClient"]

T = TypeVar("T")
Self = TypeVar("Self", bound="RestClient")
DETAIL = 300
"""Characters of the service's own words in an error's message."""

_REMEDIES = {
    404: "is the url right?",
    413: "send less at once",
    429: "call less often",
    500: "the service is in trouble; try again",
    502: "the service is in trouble; try again",
    503: "the service is in trouble; try again",
    504: "the service is in trouble; try again",
}


class RestClient:
    """Calls that stand alone: between them, nothing is open but idle connections.

    Unlike a :class:`~metered_sync.bridge.facade.Facade` it owns nothing on the engine. Each call
    borrows the engine that the process has at that moment, for what the engine does for any
    call: its deadline, Ctrl-C, and saying where one may not wait. So an object made before
    ``os.fork()`` works on both sides, one that is forgotten needs no warning, and there is
    no lock here.
    """

    _error: ClassVar[type[RestError]]

    def __init__(self, label: str, origin: str, timeout: float) -> None:
        self._label = label
        self._origin = origin
        self._timeout = Deadline(timeout).timeout
        self._https: list[Http] = []
        self._closed = False

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self._label} holds a secret and is not pickled; make a new one there")

    def close(self) -> None:
        """Close idle connections. Calls under way go on to their end. Repeatable."""
        self._closed = True
        for http in self._https:
            http.close()

    def _with_secret(self, secret: str, *, parameter: str | None = None) -> Http:
        """Return what :meth:`_ask` sends requests with; closed with this object."""
        http = Http(self._origin, secret, parameter=parameter)
        self._https.append(http)
        return http

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _ask(
        self,
        http: Http,
        method: str,
        path: str,
        parse: Callable[[Any], T],
        *,
        what: str,
        timeout: float | None,
        body: Any = None,
        safe: bool = False,
        needs: str = "the permission",
    ) -> T:
        """Make a call and return its parsed answer.

        Args:
            parse: Takes the decoded body of a 2xx answer; may raise ``FieldError``.
            what: What is being done, for errors.
            safe: Whether it may be carried out twice; then failures are tried again.
            needs: What the key must have for it.
        """
        deadline = Deadline.of(timeout, self._timeout)
        what = f"{self._label}: {what}"
        if self._closed:
            raise ClosedError(f"{what}: it is closed; make a new one")
        sent = False

        async def fetch() -> Answer | HttpError:
            nonlocal sent
            sent = True
            try:
                return await http.fetch(method, path, json=body, deadline=deadline, safe=safe)
            except HttpError as failure:
                return failure

        answer = engines.current().call(
            fetch, deadline=deadline, what=what, progress=lambda: ("sending", sent)
        )
        if isinstance(answer, HttpError):
            if safe or not answer.sent:
                remedy = "check the url and the network"
            else:
                remedy = "it may have been carried out all the same"
            raise self._error(
                f"{what}: no answer from {self._origin}: {answer}; {remedy}", sent=answer.sent
            )
        if not answer.ok:
            raise self._refusal(what, needs, answer)
        malformed = ""
        try:
            return parse(answer.body)
        except FieldError as error:
            malformed = str(error)
        raise self._error(
            f"{what}: the answer from {self._origin} is not what the service sends "
            f"({malformed}); is the url right?",
            status=answer.status,
        )

    def _refusal(self, what: str, needs: str, answer: Answer) -> RestError:
        code, message = parse_error(answer.body)
        texts = (answer.body,) if isinstance(answer.body, str) else (code, message)
        detail = scrub(": ".join(text for text in texts if text))[:DETAIL]
        remedy = self._remedy(answer.status, code, needs) or _REMEDIES.get(answer.status, "")
        wait = f"the service asks to wait {answer.retry_after:g} s" if answer.retry_after else ""
        advice = "; ".join(text for text in (remedy, wait) if text)
        return self._error(
            f"{what} failed with HTTP {answer.status}"
            + (f" ({detail})" if detail else "")
            + (f": {advice}" if advice else ""),
            status=answer.status,
            code=None if code is None else scrub(code)[:DETAIL],
            retry_after=answer.retry_after,
        )

    def _remedy(self, status: int, code: str | None, needs: str) -> str:
        """Say what to do about a refusal, where it is peculiar to this service."""
        raise NotImplementedError
