"""Test that log records of ours and of other libraries have no secrets in them."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from metered_sync.engine.logs import scrub_loggers, scrubbed_logger


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    yield log
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.mark.parametrize(
    ("text", "args", "shown"),
    [
        ("GET /v1?token=%s HTTP/1.1", ("HUSH",), "GET /v1?token=… HTTP/1.1"),
        ("= connection is %s", ("OPEN",), "= connection is OPEN"),
        ("< TEXT '{\"a\": HUSH' [%d bytes]", (90,), "< TEXT … [90 bytes]"),
        ("> CONT 'HUSH\nHUSH' [7 bytes, continued]", (), "> CONT … [7 bytes, continued]"),
        ("a=ice-pwd:HUSH", (), "a=ice-pwd:…"),
    ],
)
def test_secrets_and_frames_are_cut_out(
    log: io.StringIO, text: str, args: tuple[object, ...], shown: str
) -> None:
    scrubbed_logger("test.scrubbed").debug(text, *args)
    assert log.getvalue() == f"{shown}\n"


def test_a_logger_is_scrubbed_once() -> None:
    first = scrubbed_logger("test.once")
    assert scrubbed_logger("test.once") is first
    assert len(first.filters) == 1


def test_every_logger_of_a_package_is_scrubbed_and_no_other(log: io.StringIO) -> None:
    for name in ("scrubme", "scrubme.inner.deep", "scrubmenot"):
        logging.getLogger(name)
    scrub_loggers("scrubme")
    for name in ("scrubme", "scrubme.inner.deep", "scrubmenot"):
        logging.getLogger(name).warning("?key=HUSH")
    assert log.getvalue() == "?key=…\n?key=…\n?key=HUSH\n"


def test_a_library_that_is_used_is_scrubbed(log: io.StringIO) -> None:
    import metered_sync.engine.http  # noqa: F401 - it scrubs what it uses

    logging.getLogger("urllib3.connectionpool").debug('"GET /x?apiKey=HUSH HTTP/1.1" 200')
    assert "HUSH" not in log.getvalue()
    assert "apiKey=…" in log.getvalue()
