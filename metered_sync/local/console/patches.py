"""Make the patches by which a page follows a cloud: a snapshot first, then what changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from metered_sync.bridge.clock import monotonic
from metered_sync.local.console.journal import Entry, Journal

__all__ = ["PatchMaker"]

MAX_ROWS = 50
"""Rows of the log in a patch: refusals first, then the latest that are no acknowledgements."""
MAX_FIRST_ROWS = 300
"""Rows in the snapshot."""
MAX_SIZE = 256 << 10
"""Characters of frames and bodies in a patch."""
_ACK = b'{"type":"ack"'
SHARE = 20
"""The time between two looks at the state is at least so many times what the last one took."""


class PatchMaker:
    """Remembers what one page knows.

    Args:
        journal: What has gone over the wire.
        sections: Describes the cloud, in sections by name.
        words: What a row of the log must contain; all rows if empty.
        only_refused: Whether rows are only wanted of what was refused.
    """

    def __init__(
        self,
        journal: Journal,
        sections: Callable[[], dict[str, Any]],
        words: str = "",
        *,
        only_refused: bool = False,
    ) -> None:
        self._journal = journal
        self._sections = sections
        self._words = words.lower()
        self._only_refused = only_refused
        self._known: dict[str, Any] = {}
        self._last = 0
        self._first = True
        self._due = 0.0

    def next(self) -> bytes | None:
        """Return a patch as a server-sent event; ``None`` if nothing is new.

        It is an object: each section that changed, whole; new rows of the log (``log``); and how
        many were left out (``skipped``). The snapshot has ``"first": true``.
        """
        patch = {**self._changes(), **self._rows()}
        if self._first:
            patch["first"], self._first = True, False
        # (ASCII: a name of others may be half of a surrogate pair, which UTF-8 cannot carry.)
        return f"data: {json.dumps(patch)}\n\n".encode() if patch else None

    def _changes(self) -> dict[str, Any]:
        start = monotonic()
        if start < self._due:
            return {}
        sections = self._sections()
        changed = {n: value for n, value in sections.items() if self._known.get(n) != value}
        self._known = sections
        now = monotonic()
        self._due = now + SHARE * (now - start)
        return changed

    def _rows(self) -> dict[str, Any]:
        before, self._last = self._last, self._journal.last
        if before == self._last:
            return {}
        fresh = [entry for entry in self._journal.since(before) if self._is_wanted(entry)]
        found = len(fresh)
        fresh.sort(key=_rank)  # stable: the latest first
        rows, size = [], 0
        for entry in fresh[: MAX_FIRST_ROWS if self._first else MAX_ROWS]:
            size += len(entry.text) + len(entry.answer)
            if size > MAX_SIZE:
                break
            rows.append(entry)
        rows.sort(key=lambda entry: entry.number)
        news: dict[str, Any] = {}
        if rows:
            news["log"] = [entry.body() for entry in rows]
        if found > len(rows) and not self._first:
            news["skipped"] = found - len(rows)
        return news

    def _is_wanted(self, entry: Entry) -> bool:
        if self._only_refused and entry.error is None:
            return False
        return not self._words or entry.has(self._words)


def _rank(entry: Entry) -> int:
    """Return how soon a row is left out where there are too many."""
    if entry.error is not None:
        return 0
    return 2 if isinstance(entry.text, bytes) and entry.text.startswith(_ACK) else 1
