"""Write the bytes of a media file so that it can be played whatever goes wrong."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from typing import Any

from metered_sync.bridge import guard
from metered_sync.media.file_objects import FILE_FAILURES, FileObject

__all__ = ["OutputFile"]


class OutputFile:
    """Write the bytes that FFmpeg muxes to a file, up to the first error.

    The file is cut back then to where it was complete (:meth:`keep`), and stays as it is,
    though FFmpeg is told to close it all the same.
    """

    def __init__(self, target: str | FileObject) -> None:
        self._file: Any
        self._owned = not isinstance(target, FileObject)
        if isinstance(target, FileObject):
            self._file = target.file
            self._try(self._file.truncate, 0)
        else:
            self._file = open(target, "wb", buffering=0)  # noqa: SIM115
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
                self._try(self._file.seek, self._at)
                left = memoryview(data)
                while left:
                    left = left[self._try(self._file.write, left) :]
                self.size = max(self.size, self._at + len(data))
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
                self._try(self._file.truncate, self._kept)
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
        """Close the file for good; of a user's file, write out what it holds back.

        (FFmpeg does not call this: a network disk may fail here.)
        """
        if not self.closed:
            self.closed = True
            if self._owned:
                self._file.close()
            elif hasattr(self._file, "flush"):
                self._try(self._file.flush)

    @staticmethod
    def _try(call: Callable[..., Any], *args: Any) -> Any:
        """Make a call; what a user's file raises becomes an ``OSError``."""
        try:
            return call(*args)
        except FILE_FAILURES as error:
            raise OSError(errno.EBADF, f"the file cannot be written any more ({error})") from None
