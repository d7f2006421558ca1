"""Read and write open files, uploads and memory as FFmpeg does, from any place in them."""

from __future__ import annotations

import errno
import io
import os
from typing import IO, Any

from metered_sync.errors import MediaError

__all__ = ["FILE_FAILURES", "FileObject", "View"]

_INPUTS = "read it whole and pass io.BytesIO(data), or save it and pass the path"
_OUTPUTS = "record to a path, or to io.BytesIO(), and copy that when it is done"
FILE_FAILURES = (ValueError, AttributeError, TypeError)
"""What objects raise besides ``OSError``, once they are closed for instance."""


class FileObject:
    """A binary file that is open already, and can be sought in; its place in it is not kept."""

    def __init__(self, file: Any, what: str, *, writing: bool = False) -> None:
        """Check an object that ``what`` was given, for reading or for writing.

        Raises:
            TypeError: It is neither a path nor a binary file.
            MediaError: It cannot be sought in, or is closed.
        """
        kind = type(file).__name__
        verb, mode, remedy = ("write", "wb", _OUTPUTS) if writing else ("read", "rb", _INPUTS)
        self.name = _name_of(file) or kind
        self.file: IO[bytes] = file
        if isinstance(file, (bytes, bytearray, memoryview)):
            raise TypeError(f"{what} takes a path or a file, not {kind}: pass io.BytesIO(…)")
        if not hasattr(file, verb):
            raise TypeError(f"{what} takes a path, or a binary file to {verb}, not {kind}")
        if isinstance(file, io.TextIOBase):
            raise TypeError(f"{what}: {self.name!r} is open as text: open it with {mode!r}")
        if getattr(file, "closed", False) is True:
            raise MediaError(f"{what}: {self.name!r} is closed: pass it while it is open")
        if not _seekable(file):
            raise MediaError(f"{what}: {self.name!r} cannot be sought in, as media needs: {remedy}")

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def view(self) -> View:
        """Return an own place in the file, at its beginning."""
        return View(self.file)


class View:
    """A place in a binary file, for FFmpeg to read from."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._at = 0

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        try:
            self._file.seek(self._at)
            data = self._file.read(size)
        except FILE_FAILURES as error:
            raise OSError(errno.EBADF, f"the file cannot be read any more ({error})") from None
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to another place."""
        if whence == os.SEEK_END:
            try:
                offset += self._file.seek(0, os.SEEK_END) or self._file.tell()
            except FILE_FAILURES as error:
                raise OSError(errno.EBADF, f"the file cannot be read any more ({error})") from None
        elif whence == os.SEEK_CUR:
            offset += self._at
        self._at = offset
        return offset

    def tell(self) -> int:
        """Return the place."""
        return self._at


def _name_of(file: Any) -> str:
    """Return a file's own name, where it has one; those of descriptors are numbers."""
    name = getattr(file, "name", None) or getattr(file, "filename", None)
    return os.path.basename(name) if isinstance(name, str) else ""


def _seekable(file: Any) -> bool:
    try:
        if hasattr(file, "seekable") and not file.seekable():
            return False
        file.seek(file.tell())
    except (OSError, *FILE_FAILURES):
        return False
    return True
