"""Logging without secrets."""

from __future__ import annotations

import logging

from metered_sync.wire.urls import scrub

__all__ = ["scrubbed_logger"]


class _Scrubber(logging.Filter):
    """Cuts secrets out of a record's text; a third party's code wrote it."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = scrub(record.getMessage()), None
        return True


def scrubbed_logger(name: str) -> logging.Logger:
    """Return a logger to hand to a library that logs what it sends."""
    logger = logging.getLogger(name)
    if not any(isinstance(f, _Scrubber) for f in logger.filters):
        logger.addFilter(_Scrubber())
    return logger
