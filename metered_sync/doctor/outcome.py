"""Say what a stage has found, and put another's error into a stage's words."""

from __future__ import annotations

from dataclasses import dataclass

from metered_sync.doctor.report import Status
from metered_sync.wire.secrets import scrub

__all__ = ["Outcome", "Trouble", "failed", "graded", "ok", "skipped", "warning", "words"]

MAX_WORDS = 400
"""Characters of another's error that a finding shows."""


@dataclass(frozen=True)
class Outcome:
    """What a stage found, before it has been timed."""

    status: Status
    what: str
    remedy: str = ""


class Trouble(Exception):  # noqa: N818 - it carries a finding
    """Ends a stage with an outcome, from wherever in it."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.what)
        self.outcome = outcome


def ok(what: str) -> Outcome:
    """Return that all is well."""
    return Outcome("ok", what)


def warning(what: str, remedy: str) -> Outcome:
    """Return that it works, but not as it should."""
    return Outcome("warning", what, remedy)


def failed(what: str, remedy: str) -> Outcome:
    """Return that it does not work."""
    return Outcome("failed", what, remedy)


def skipped(what: str) -> Outcome:
    """Return why a stage was not run."""
    return Outcome("skipped", what)


def graded(
    value: float, warn: float, fail: float, what: str, remedy: str, fine: str | None = None
) -> Outcome:
    """Return an outcome by two thresholds; ``fine`` is what to say below both."""
    if value >= fail:
        return failed(what, remedy)
    return warning(what, remedy) if value >= warn else ok(fine or what)


def words(error: BaseException) -> str:
    """Return an error's text as a finding may show it, without the object's name at its head."""
    text = scrub(str(error)) or type(error).__name__
    return text[:MAX_WORDS]
