"""Write the bytes of a media file so that it can be played whatever goes wrong."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from metered_sync.bridge import guard

__all__ = ["OutputFile"]


class OutputFile:
    """Write the bytes that FFmpeg muxes to a file, up to the first error.

    The file is cut back then to where it was complete (:meth:`keep`), and stays as it is,
    though FFmpeg is told to close it all the same.
    """

    def __init__(self, path: str) -> None:
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115
        self._born = guard.generation()
        self._at = 0
        self._kept = 0
        self.size = 0
        """The file's size in bytes."""
        self.error: OSError | None = None
        self.closed = False

    def write(self, data: Any) -> int:
        """Write bytes; in a forked child, where FFmpeg may end the file, write none."""
        if self.error is None and self._born == guard.generation():
            try:
                self._file.seek(self._at)
                left = memoryview(data)
                while left:
                    left = left[self._file.write(left) :]
                self.size = max(self.size, self._file.tell())
            except OSError as error:
                self.fail(error)
                raise
        self._at += len(data)
        return len(data)

    def keep(self) -> None:
        """Take note that the file is complete up to here."""
        self._kept = self.size

    def fail(self, error: OSError) -> None:
        """Accept no more bytes, and cut the file back to where it was complete."""
        if self.error is None:
            self.error = error
            with contextlib.suppress(OSError):
                self._file.truncate(self._kept)
                self.size = self._kept

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to another position in the file."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}
        self._at = start[whence] + offset
        return self._at

    def tell(self) -> int:
        """Return the position in the file."""
        return self._at

    def close(self) -> None:
        """Close the file for good. (FFmpeg does not call this: a network disk may fail here.)"""
        if not self.closed:
            self.closed = True
            self._file.close()
