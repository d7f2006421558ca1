"""A page of the local cloud's console, as a program that reads its patches and posts to it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests

from metered_sync.local import LocalCloud


class ConsolePage:
    """Follows a cloud as the console's page does.

    Args:
        cloud: A local cloud with a console.
        query: ``words`` that rows must have in them, ``refused="1"`` for what was refused alone.
    """

    def __init__(self, cloud: LocalCloud, **query: str) -> None:
        parts = urlsplit(cloud.console_url)
        self._base = f"{parts.scheme}://{parts.netloc}{parts.path}"
        self._token = parse_qs(parts.query)["token"][0]
        self._session = requests.Session()
        self._answer = self._session.get(
            f"{self._base}events",
            params={"token": self._token, **query},
            stream=True,
            timeout=15,
        )
        assert self._answer.status_code == 200, self._answer.text
        assert self._answer.headers["Content-Type"].startswith("text/event-stream")
        assert "default-src 'none'" in self._answer.headers["Content-Security-Policy"]
        self._lines = self._answer.iter_lines(chunk_size=None)
        self.state: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []
        self.skipped = 0
        self.sizes: list[int] = []
        """How long each patch was."""

    def __enter__(self) -> ConsolePage:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._answer.close()
        self._session.close()

    def patch(self) -> dict[str, Any]:
        """Read the next patch."""
        for line in self._lines:
            if line.startswith(b"data: "):
                patch: dict[str, Any] = json.loads(line[6:])
                self.sizes.append(len(line))
                self.rows += patch.pop("log", ())
                self.skipped += patch.pop("skipped", 0)
                self.state.update(patch)
                return patch
        raise AssertionError("the stream has ended")

    def wait_for(self, find: Callable[[], Any], timeout: float = 20.0) -> Any:
        """Read patches until there is what is looked for; return that."""
        end = time.monotonic() + timeout
        while True:
            found = find()
            if found:
                return found
            assert time.monotonic() < end, (self.state, self.rows[-20:])
            self.patch()

    def row(self, **values: Any) -> dict[str, Any]:
        """Return the first row with these values, once it is there."""

        def find() -> Any:
            return next(
                (row for row in self.rows if all(row.get(n) == v for n, v in values.items())), None
            )

        found: dict[str, Any] = self.wait_for(find)
        return found

    def post(self, action: str, body: Any = None) -> requests.Response:
        """Ask for something, as a page does."""
        return requests.post(
            f"{self._base}{action}",
            json=body,
            headers={"Authorization": f"Bearer {self._token}"},
            timeout=15,
        )

    def get(self, what: str) -> requests.Response:
        """Ask for something that changes nothing."""
        return requests.get(
            f"{self._base}{what}", headers={"Authorization": f"Bearer {self._token}"}, timeout=15
        )
