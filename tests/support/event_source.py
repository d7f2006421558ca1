"""Read server-sent events over HTTP as they come."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests


class EventReader:
    """The events of one response, which is a stream."""

    def __init__(self, response: requests.Response) -> None:
        self.response = response
        self._lines = response.iter_lines(chunk_size=1)

    def read(self) -> Any:
        """Return the data of the next event, after any number of comments."""
        for line in self._lines:
            if line.startswith(b"data: "):
                assert next(self._lines) == b""
                return json.loads(line[6:])
            assert line == b"" or line.startswith(b":"), line
        raise EOFError("the stream has ended")

    def wait_for_comment(self) -> None:
        """Read up to the next comment: the first says that the channel is subscribed to."""
        assert next(line for line in self._lines if line).startswith(b":")


@contextmanager
def event_source(url: str, **options: Any) -> Iterator[EventReader]:
    """Open a stream that has been subscribed to; it is left, as by a page, at the end."""
    with requests.get(url, stream=True, timeout=30, **options) as response:
        assert response.status_code == 200, response.text
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert "no-cache" in response.headers["Cache-Control"]
        reader = EventReader(response)
        reader.wait_for_comment()
        yield reader
