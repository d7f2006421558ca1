"""Keep the latest group of pictures: the latest key frame, and what came after it."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["KeptGroup", "is_too_long"]

T = TypeVar("T")

MAX_GROUP_BYTES = 4 << 20
MAX_GROUP_SECONDS = 12.0
"""The longest group of pictures that is kept. Who comes late to a longer one waits for the next."""


def is_too_long(size: int, seconds: float) -> bool:
    """Say whether pictures of so many bytes, over so many seconds, are too many to be kept."""
    return size > MAX_GROUP_BYTES or seconds > MAX_GROUP_SECONDS


class KeptGroup(Generic[T]):
    """The latest group of pictures; none where it is too long."""

    def __init__(self) -> None:
        self.pictures: list[T] = []
        self._size = 0
        self._began = 0.0

    def add(self, picture: T, *, key: bool, size: int, time: float) -> None:
        """Keep a picture of so many bytes, at a time in seconds, if a group begins or goes on."""
        if key:
            self.clear()
            self._began = time
        elif not self.pictures:
            return
        self.pictures.append(picture)
        self._size += size
        if is_too_long(self._size, time - self._began):
            self.clear()

    def clear(self) -> None:
        """Keep nothing: what follows does not follow it."""
        self.pictures = []
        self._size = 0
