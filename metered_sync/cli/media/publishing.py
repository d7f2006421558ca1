"""Open what is to be published: a file, a network camera, a test pattern."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from metered_sync.media.sources.base import Source
from metered_sync.media.sources.files import from_file
from metered_sync.media.sources.rtsp import from_rtsp
from metered_sync.testing.sources import PatternSource, ToneSource

__all__ = ["PATTERN", "opened"]

PATTERN = "pattern"
"""The word for the test pattern; a file of this name is ``./pattern``."""
PATTERN_SIZE = (640, 360)
PATTERN_FPS = 30
TONE = 440.0
TONE_LEVEL = -30.0


@contextmanager
def opened(
    given: str, *, loop: bool = False, encoded: bool = False
) -> Iterator[list[Source[Any, Any]]]:
    """Open what a command line names, for the length of a ``with`` block.

    Args:
        given: A file's path, ``rtsp://…`` or ``rtsps://…``; or ``pattern``: pictures that show
            their number, and a quiet tone.
        loop: Play a file again and again.
        encoded: Send a file or a camera as it is encoded: its pictures, and its sound if that can
            be sent so.

    Returns:
        The sources. The first one ends with what is played.

    Raises:
        MediaError: It cannot be opened.
        ValueError: ``loop`` of something that has no end.
    """
    camera = given.startswith(("rtsp://", "rtsps://"))
    if loop and (camera or given == PATTERN):
        raise ValueError("--loop is for files: a camera and the pattern go on by themselves")
    if encoded and given == PATTERN:
        raise ValueError("--encoded is for files and cameras: the pattern is not encoded before")
    with ExitStack() as stack:
        sources: list[Source[Any, Any]]
        if given == PATTERN:
            sources = [
                PatternSource(*PATTERN_SIZE, PATTERN_FPS),
                ToneSource(TONE, level=TONE_LEVEL),
            ]
        elif camera:
            sources = [from_rtsp(given, encoded=encoded)]
        else:
            sources = [from_file(given, loop=loop, encoded=encoded)]
        for source in sources:
            stack.enter_context(source)
        yield sources
