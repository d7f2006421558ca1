"""The signals of one peer, on their way to its connection."""

from __future__ import annotations

import itertools
import logging
from collections import deque

from metered_sync.wire.signals import Candidate, EndOfCandidates, SessionDescription

__all__ = ["Inbound", "Inbox"]

logger = logging.getLogger("metered_sync")
Inbound = SessionDescription | Candidate | EndOfCandidates
SIZE = 1000
"""Signals that wait at most; more are dropped."""
EARLY = 100
"""Candidates kept whose description has not come yet, and descriptions remembered."""


class Inbox:
    """A bounded queue, which knows what belongs to which description.

    A description and its candidates have a user name fragment in common. Signals come in
    order, or late, or before their time: candidates of an earlier description must not
    reach the connection, and those of the next one must not be lost.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._waiting: deque[Inbound] = deque()
        self._early: deque[Candidate | EndOfCandidates] = deque(maxlen=EARLY)
        self._past: deque[str] = deque(maxlen=EARLY)

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, signal: Inbound) -> None:
        """Queue a signal."""
        if len(self._waiting) < SIZE:
            self._waiting.append(signal)
        else:
            logger.warning("%s: too many signals at once: one was dropped", self._label)

    def take(self) -> Inbound:
        """Return the next signal."""
        return self._waiting.popleft()

    def clear(self) -> None:
        """Forget what waits."""
        self._waiting.clear()

    def has_offer(self) -> bool:
        """Return whether an offer waits."""
        return any(isinstance(s, SessionDescription) and s.type == "offer" for s in self._waiting)

    def is_past(self, fragment: str) -> bool:
        """Return whether the other side has given a description up."""
        return fragment in self._past

    def belongs(self, signal: Candidate | EndOfCandidates, fragment: str) -> bool:
        """Return whether a signal is about the present description; keep an early one."""
        named = signal.username_fragment
        if named is None and isinstance(signal, Candidate):
            fields = signal.candidate.split()
            named = next((v for k, v in itertools.pairwise(fields) if k == "ufrag"), None)
        if named is not None and named != fragment and named not in self._past:
            self._early.append(signal)
        return named in (None, fragment)

    def move(self, before: str) -> None:
        """Take note of a new description; hand out again what came before it."""
        if before:
            self._past.append(before)
        self._waiting.extendleft(reversed(self._early))
        self._early.clear()
