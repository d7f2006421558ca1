"""Test that log records of ours and of other libraries have no secrets in them."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest

from metered_sync import MeteredPeer
from metered_sync.engine.logs import scrub_loggers, scrubbed_logger
from metered_sync.local import LocalCloud


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


def test_the_talk_of_media_libraries_stays_out_of_a_log_at_info(
    log: io.StringIO, shared_cloud: LocalCloud
) -> None:
    logging.getLogger().setLevel(logging.INFO)
    options: dict[str, Any] = {**shared_cloud.client_options(), "ice_servers": []}
    with MeteredPeer(**options) as one, MeteredPeer(**options) as other:
        one.join("quiet logs")
        other.join("quiet logs")
        one.wait_for_peer(timeout=20).create_data_channel("talk", timeout=10).close()
    ice = logging.getLogger("aioice.ice")
    assert not re.search(r"Connection\(|Check|CandidatePair", log.getvalue())
    ice.warning("a warning")
    assert log.getvalue().endswith("a warning\n")
    try:
        for asking, level in (("aioice", logging.INFO), ("", logging.DEBUG)):
            logging.getLogger(asking).setLevel(level)
            ice.info("asked for by %r", asking)
            assert log.getvalue().endswith(f"asked for by {asking!r}\n")
            logging.getLogger(asking or None).setLevel(logging.INFO if not asking else 0)
    finally:
        logging.getLogger("aioice").setLevel(logging.NOTSET)
    before = log.getvalue()
    ice.info("nobody asks")
    assert log.getvalue() == before
