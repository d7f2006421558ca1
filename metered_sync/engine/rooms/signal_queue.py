"""Keep the signals of one peer, on their way to its connection."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections import deque

from metered_sync.wire.signals import Candidate, EndOfCandidates, Hello, SessionDescription

__all__ = ["Inbound", "SignalQueue"]

logger = logging.getLogger("metered_sync")
Inbound = SessionDescription | Candidate | EndOfCandidates | Hello
MAX_SIGNALS = 1000
"""Signals that wait at most; more are dropped."""
WARNING_INTERVAL = 60.0
"""Seconds between two warnings of dropped signals: a member may cause them at will."""
MAX_REMEMBERED = 100
"""Candidates kept whose description has not come yet, and descriptions remembered."""


class SignalQueue:
    """A bounded queue, which knows what belongs to which description.

    A description and its candidates have a user name fragment in common. Signals come in
    order, or late, or before their time: candidates of an earlier description must not
    reach the connection, and those of the next one must not be lost.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._waiting: deque[Inbound] = deque()
        self._dropped = 0
        """Signals that were dropped, and of which no warning has told."""
        self._told_at = -math.inf
        self._early: deque[Candidate | EndOfCandidates] = deque(maxlen=MAX_REMEMBERED)
        self._past: deque[str] = deque(maxlen=MAX_REMEMBERED)

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, signal: Inbound) -> None:
        """Queue a signal."""
        if len(self._waiting) < MAX_SIGNALS:
            self._waiting.append(signal)
            return
        self._dropped += 1
        now = time.monotonic()
        if now - self._told_at >= WARNING_INTERVAL:
            logger.warning(
                "%s: too many signals at once: %d dropped since the last such warning",
                self._label,
                self._dropped,
            )
            self._told_at, self._dropped = now, 0

    def take(self) -> Inbound:
        """Return the next signal."""
        return self._waiting.popleft()

    def clear(self) -> None:
        """Drop the signals that wait."""
        self._waiting.clear()

    def is_outdated(self, signal: SessionDescription, fragment: str) -> bool:
        """Return whether a description was given up, or a newer offer than it waits."""
        if fragment in self._past:
            return True
        return signal.type == "offer" and any(
            isinstance(waiting, SessionDescription) and waiting.type == "offer"
            for waiting in self._waiting
        )

    def belongs(self, signal: Candidate | EndOfCandidates, fragment: str) -> bool:
        """Return whether a signal is about the present description; keep an early one."""
        named = signal.username_fragment
        if named is None and isinstance(signal, Candidate):
            fields = signal.candidate.split()
            named = next((v for k, v in itertools.pairwise(fields) if k == "ufrag"), None)
        if named is not None and named != fragment and named not in self._past:
            self._early.append(signal)
        return named in (None, fragment)

    def move_on(self, before: str) -> None:
        """Note that a new description is current; queue the candidates that came ahead of it.

        Args:
            before: The fragment of the one that was current, or nothing.
        """
        if before:
            self._past.append(before)
        self._waiting.extendleft(reversed(self._early))
        self._early.clear()
