"""Cut secrets and chatter out of other libraries' log records; log what handlers raise.

At DEBUG, ``websockets`` logs request lines (with ``?token=…``) and frames (a welcome
carries TURN credentials), ``urllib3`` logs paths with their queries, ``aiortc`` session
descriptions (with ``ice-pwd``). A filter on their loggers cuts that out. And ``aioice`` tells
at INFO of each pair of addresses that it tries: in an application's log at INFO that is noise.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from metered_sync.bridge.logs import guarded_logger
from metered_sync.wire.secrets import clear_locals, cut_secrets

__all__ = ["logging_errors", "scrub_loggers", "scrubbed_logger"]

logger = logging.getLogger("metered_sync")

# Frames are logged with their middle left out, so no pattern could find every secret in one.
_FRAME = re.compile(r"\b(TEXT|BINARY|CONT) .*(?= \[\d+ bytes)", re.DOTALL)


class _Scrubber(logging.Filter):
    """Cuts secrets out of a record's text."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = _FRAME.sub(r"\1 …", cut_secrets(record.getMessage())), None
        return True


class _Quiet(logging.Filter):
    """Lets what is below WARNING through only to those who ask for it.

    They do so by a level of the library's own loggers, or by DEBUG for all.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            return True
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None and logger.parent is not None and logger.level == logging.NOTSET:
            logger = logger.parent
        return logger is not logging.root or logging.root.level <= logging.DEBUG


def scrubbed_logger(name: str) -> logging.Logger:
    """Return the logger of this name: no secrets in its records, no errors out of its handlers."""
    logger = guarded_logger(name)
    if not any(isinstance(f, _Scrubber) for f in logger.filters):
        logger.addFilter(_Scrubber())
    return logger


def scrub_loggers(*packages: str, quiet: bool = False) -> None:
    """Scrub every logger that these packages made when they were imported.

    ``quiet`` keeps what is below WARNING out of an application's own log.
    """
    for name in tuple(logging.root.manager.loggerDict):
        if name.split(".")[0] in packages:
            logger = scrubbed_logger(name)
            if quiet and not any(isinstance(f, _Quiet) for f in logger.filters):
                logger.addFilter(_Quiet())


@contextmanager
def logging_errors(what: str) -> Iterator[None]:
    """Log what is raised while an event is handled: it must not end a connection."""
    try:
        yield
    except Exception as error:
        clear_locals(error)
        logger.exception("%s could not be handled", what)
