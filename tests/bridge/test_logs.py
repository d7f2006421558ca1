"""Test that what listens to the log cannot break what logs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

from metered_sync.bridge.logs import guarded_logger

NAME = "a logger of test_logs"


class Raising(logging.Handler):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def emit(self, record: logging.LogRecord) -> None:
        raise self.error


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = guarded_logger(NAME)
    yield logger
    logger.handlers.clear()
    logger.filters.clear()


def test_what_a_handler_raises_is_shown_and_goes_no_further(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    logger.addHandler(Raising(ValueError("of the handler")))
    logger.warning("with %s", "a secret")
    shown = capsys.readouterr().err
    assert f"a handler or filter of {NAME!r}" in shown
    assert "ValueError: of the handler" in shown
    assert "with" not in shown
    assert "secret" not in shown


def test_what_a_filter_raises_goes_no_further(logger: logging.Logger) -> None:
    def wrong(record: logging.LogRecord) -> bool:
        raise ValueError("of the filter")

    logger.addFilter(wrong)
    logger.warning("anything")


def test_guarding_twice_guards_once(logger: logging.Logger) -> None:
    handle = logger.handle
    assert guarded_logger(NAME) is logger
    assert logger.handle is handle


def test_ctrl_c_goes_on_in_the_main_thread_alone(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    logger.addHandler(Raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        logger.warning("anything")
    thread = threading.Thread(target=logger.warning, args=("anything",))
    thread.start()
    thread.join(10)
    assert "KeyboardInterrupt" in capsys.readouterr().err


def test_loggers_of_others_are_guarded_on_threads_of_ours(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours: set[int] = set()
    logger = guarded_logger(NAME + " for some threads", ours)
    logger.addHandler(Raising(ValueError("of the handler")))
    with pytest.raises(ValueError, match="of the handler"):
        logger.warning("anything")
    ours.add(threading.get_ident())
    logger.warning("anything")
    assert "of the handler" in capsys.readouterr().err


def test_errors_are_not_shown_where_logging_shows_none(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logger.addHandler(Raising(ValueError("of the handler")))
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logger.warning("anything")
    monkeypatch.setattr(logging, "raiseExceptions", True)
    monkeypatch.setattr("sys.stderr", None)
    logger.warning("anything")
    assert capsys.readouterr().err == ""
