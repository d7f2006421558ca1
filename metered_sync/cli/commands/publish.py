"""Publish messages: ``metered-sync publish``."""

from __future__ import annotations

import queue
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from metered_sync.cli import output
from metered_sync.cli.arguments import CHANNEL, PEER, LineError, input_lines, parsed_json
from metered_sync.cli.connection import Connection, connection_options
from metered_sync.errors import MeteredTimeoutError, OversizedPayloadError
from metered_sync.wire.secrets import cut_secrets

if TYPE_CHECKING:
    from metered_sync import Delivery, SignallingClient

__all__ = ["command"]

WINDOW = 1024
"""Messages that may wait for their acknowledgement; then no more input is read."""
MAX_COMPLAINTS = 20
"""Lines of which stderr says what is wrong with each; the others are only counted."""
PROGRESS_PAUSE = 0.2
"""Seconds between two reports of progress."""
LAST_WORDS = 2.0
"""Seconds that what was read may take to arrive after Ctrl-C."""


@click.command("publish", short_help="Publish a message, or a line of standard input each.")
@click.argument("channel", metavar="[CHANNEL]", required=False)
@click.argument("data", metavar="[JSON]", required=False)
@click.option("--to", metavar="PEER", type=PEER, help="Send to one peer; there is no CHANNEL then.")
@click.option("--text", is_flag=True, help="Take the argument, or each line, as a string.")
@click.option(
    "--rate",
    type=click.FloatRange(0, max=1e6),
    metavar="N",
    help="Messages a second; 0: as many as possible. Unless given, the service's pace, 90.",
)
@connection_options("messaging")
@output.json_option
def command(
    channel: str | None,
    data: str | None,
    to: str | None,
    text: bool,
    rate: float | None,
    connection: Connection,
    as_json: bool,
) -> int:
    """Publish JSON to a channel. Without JSON, or with -, publish each line of standard input, in
    order and many at once; lines that are refused are told of, and the others go on.

    Prints nothing; with --json, how many were published.
    """
    if to is not None:
        if data is not None:
            raise click.UsageError("--to: there is no CHANNEL, only PEER and JSON")
        channel, data = None, channel
    elif channel is None:
        raise click.UsageError("Missing argument 'CHANNEL' (or option '--to').")
    else:
        channel = CHANNEL.convert(channel, None, None)

    from metered_sync import SignallingClient

    parse = _parser(text)
    options: dict[str, Any] = connection.messaging()
    if rate is not None:
        options["rate_limit"] = (rate, max(1.0, rate)) if rate else None
    if data is not None and data != "-":
        try:
            value = parse(data.encode(errors="surrogateescape"))
        except ValueError as error:
            remedy = "" if text or len(data) > 40 else f"; for a text: --text {data!r}"
            raise click.UsageError(f"{error}{remedy}") from None
        with SignallingClient(**options) as client:
            if to is not None:
                client.send(to, value)
            elif channel is not None:
                client.publish(channel, value)
        published, failed = 1, 0
    else:
        if output.is_terminal(sys.stdin):
            kind = "text" if text else "JSON"
            output.talk(f"publishing each line of {kind} that you type; Ctrl-D ends it")
        with SignallingClient(**options) as client:
            published, failed = _Pipeline(client, channel, to).run(parse)
    if as_json:
        output.json_line({"published": published})
    return 1 if failed else 0


def _parser(text: bool) -> Callable[[bytes], Any]:
    """Return the function that makes data of a line; its ``ValueError`` says what is wrong."""
    if not text:
        return parsed_json

    def decoded(line: bytes) -> str:
        try:
            return line.decode()
        except UnicodeDecodeError:
            raise ValueError("is no text in UTF-8") from None

    return decoded


class _Pipeline:
    """Publish the lines of standard input without waiting for each, within a bound."""

    def __init__(self, client: SignallingClient, channel: str | None, peer: str | None) -> None:
        self._client = client
        self._channel = channel
        self._peer = peer
        self._waiting: deque[tuple[int, Delivery]] = deque()
        self._published = 0
        self._failed = 0
        self._due = 0.0
        self._report: Callable[[str], None] = lambda _: None

    def run(self, parse: Callable[[bytes], Any]) -> tuple[int, int]:
        """Publish all lines; return how many were published, and how many were not."""
        quiet = output.is_terminal(sys.stdin)  # somebody types where progress would be shown
        try:
            with nullcontext(lambda _: None) if quiet else output.progress() as self._report:
                for number, line in input_lines():
                    self._put(number, line, parse)
                while self._waiting:
                    self._settle()
        except KeyboardInterrupt:
            end = time.monotonic() + LAST_WORDS
            while self._waiting and time.monotonic() < end:
                self._settle(end - time.monotonic())
            raise
        finally:
            if self._failed > MAX_COMPLAINTS:
                output.talk(f"{self._failed} lines were not published in all")
            if self._waiting:
                output.talk(f"{len(self._waiting)} lines were read and not acknowledged")
        return self._published, self._failed

    def _put(self, number: int, line: bytes | LineError, parse: Callable[[bytes], Any]) -> None:
        """Publish a line, and wait where too many are on their way."""
        if parse is parsed_json and isinstance(line, bytes) and not line.strip():
            return
        try:
            if isinstance(line, LineError):
                raise line
            delivery = self._deliver(parse(line))
        except (OversizedPayloadError, ValueError) as error:
            self._complain(number, error)
        else:
            self._waiting.append((number, delivery))
        while self._waiting and (len(self._waiting) >= WINDOW or self._waiting[0][1].done()):
            self._settle()

    def _deliver(self, data: Any) -> Delivery:
        while True:
            try:
                if self._peer is not None:
                    return self._client.send_nowait(self._peer, data)
                return self._client.publish_nowait(str(self._channel), data)
            except queue.Full:
                self._settle()

    def _settle(self, timeout: float | None = None) -> None:
        """Wait for the oldest message's acknowledgement."""
        number, delivery = self._waiting[0]
        try:
            error = delivery.exception(timeout)
        except MeteredTimeoutError:
            return
        self._waiting.popleft()
        if error is None:
            self._published += 1
        else:
            self._complain(number, error)
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + PROGRESS_PAUSE
            self._report(f"{self._published} published, {len(self._waiting)} on their way")

    def _complain(self, number: int, error: BaseException) -> None:
        self._failed += 1
        if self._failed <= MAX_COMPLAINTS:
            output.talk(f"line {number}: {output.printable(cut_secrets(str(error)))}")
