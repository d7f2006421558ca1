"""Rule 9, at every step: whenever a call is broken off, nothing that it made is left.

Each operation is run once to list the places at which the engine waits in it (see
:mod:`tests.support.interleavings`), then once more for each of them, and broken off there: by
``close()``, by its deadline, by Ctrl-C. Afterwards the client works, unless it was closed; and
once it is closed the server sees no connection and no session of it, and this process holds what
it held before.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from metered_sync import (
    DisconnectedError,
    MeteredError,
    MeteredPeer,
    MeteredTimeoutError,
    SfuClient,
    SignallingClient,
)
from metered_sync.bridge import engines
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.conftest import wait_until
from tests.rules.test_leaks import census
from tests.support.interleavings import Interruption, Moment, interrupted
from tests.test_client import FAST

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")

SHARE = 11
"""One step in so many is taken of what takes long, in ``make test``."""
SHORT = 0.25
"""Seconds that a call may take which is held up until its deadline."""
LIMIT = 20.0
"""Seconds that a call may take otherwise."""
TIMINGS = dataclasses.replace(DEFAULT_TIMINGS, recover_delay=0.05, watch=0.2)


class Operation:
    """A call that makes something, on a client of its own each time."""

    silence = 3.0
    """Seconds after which the SFU ends a session that nobody has connected to."""
    other_session: str | None = ""
    """The SFU session of another client, which stays."""

    def __init__(self, cloud: LocalCloud, stack: ExitStack) -> None:
        """Set up what stays over all the times."""
        self.cloud = cloud

    def client(self) -> Any:
        """Return a client, as far as it has to be before the call."""
        raise NotImplementedError

    def disturb(self, client: Any) -> None:
        """Do what the call is to recover from."""

    def call(self, client: Any, timeout: float) -> None:
        """Make the call."""
        raise NotImplementedError

    def made(self, client: Any) -> int:
        """Return how many things of the client's there are that such calls make."""
        return 0


class Connect(Operation):
    def client(self) -> Any:
        return SignallingClient(**self.cloud.token_options("ann"), reconnect=FAST)

    def call(self, client: Any, timeout: float) -> None:
        client.connect(timeout=timeout)


class Reconnect(Connect):
    def client(self) -> Any:
        client = super().client()
        client.connect()
        client.subscribe("steps")
        return client

    def disturb(self, client: Any) -> None:
        self.cloud.faults.drop_connections("ann")

    def call(self, client: Any, timeout: float) -> None:
        try:
            client.publish("steps", 1, timeout=timeout)
        except DisconnectedError:  # it has not noticed yet
            client.publish("steps", 2, timeout=timeout)


class ConnectToSfu(Operation):
    def client(self) -> Any:
        return SfuClient(**self.cloud.sfu_options(), _timings=TIMINGS)

    def call(self, client: Any, timeout: float) -> None:
        client.connect(timeout=timeout)


class Publish(ConnectToSfu):
    def __init__(self, cloud: LocalCloud, stack: ExitStack) -> None:
        super().__init__(cloud, stack)
        self.source = stack.enter_context(PatternSource(64, 48, 5))

    def client(self) -> Any:
        client = super().client()
        client.connect()
        return client

    def call(self, client: Any, timeout: float) -> None:
        client.publish(self.source.video, timeout=timeout)

    def made(self, client: Any) -> int:
        return sum(not one.closed for one in client._link.outgoing)


class Subscribe(Publish):
    silence = 12.0

    def __init__(self, cloud: LocalCloud, stack: ExitStack) -> None:
        super().__init__(cloud, stack)
        publisher = stack.enter_context(SfuClient(**cloud.sfu_options()))
        self.publication = publisher.publish(self.source.video)
        self.other_session = publisher.session_id

    def call(self, client: Any, timeout: float) -> None:
        ids = self.publication.session_id, self.publication.track_id
        client.subscribe(*ids, timeout=timeout)

    def made(self, client: Any) -> int:
        return sum(not one.ended for one in client._link.incoming)


class Recover(Subscribe):
    def client(self) -> Any:
        client = super().client()
        client.publish(self.source.video)
        client.subscribe(self.publication)
        return client

    def disturb(self, client: Any) -> None:
        self.cloud.faults.kill_sfu_session(client.session_id)


class Join(Operation):
    def __init__(self, cloud: LocalCloud, stack: ExitStack) -> None:
        super().__init__(cloud, stack)
        source = stack.enter_context(PatternSource(64, 48, 5))
        other = stack.enter_context(MeteredPeer(**cloud.token_options("bob"), ice_servers=[]))
        other.add_track(source.video)
        other.join("steps")
        with self.client() as first:  # with the first picture the source's thread begins
            first.join("steps")
            first.wait_for_peer("bob", timeout=LIMIT).track("video").read(timeout=LIMIT)

    def client(self) -> Any:
        return MeteredPeer(**self.cloud.token_options("ann"), ice_servers=[], reconnect=FAST)

    def call(self, client: Any, timeout: float) -> None:
        if client.state == "idle":
            client.join("steps", timeout=timeout)
        client.wait_for_peer("bob", timeout=timeout).track("video", timeout=timeout)


LONG = (Reconnect, Subscribe, Join, Recover)
"""What takes long, or has many places."""


def close(client: Any, _: Interruption) -> None:
    """Close a client, as its collection does."""
    engines.current().abandon(client._link)


def cancel(client: Any, _: Interruption) -> None:
    """Cancel the call, as the passing of its deadline does."""
    for call in tuple(engines.current()._calls):
        call.cancel()


def press_ctrl_c(client: Any, interruption: Interruption) -> None:
    """Interrupt the call: again, if the signal comes a moment before it waits."""
    if interruption.active:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        again = functools.partial(press_ctrl_c, client, interruption)
        asyncio.get_running_loop().call_later(0.3, again)


def wait(client: Any, _: Interruption) -> None:
    """Do nothing: the call is held up until its deadline."""


INTERRUPTIONS: dict[str, tuple[Moment, Callable[[Any, Interruption], None]]] = {
    "close": ("waiting", close),
    "close, late": ("ready", close),
    "cancel": ("waiting", cancel),
    "cancel, late": ("ready", cancel),
    "timeout": ("held", wait),
    "Ctrl-C": ("held", press_ctrl_c),
}


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Have Ctrl-C interrupt the test itself."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Steps:
    """Break an operation off at one place after the other."""

    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        self._engine = engines.current()
        for _ in range(2):  # the first time is another one: caches, threads
            listing = Interruption()
            self._run(listing, LIMIT)
        self.places = listing.places
        """The places at which the engine waits during the call, in their order."""
        wait_until(lambda: not self._on_servers(), 20, "the servers see the client go")
        self._before = census()

    def break_off(self, name: str, place: str) -> bool:
        """Break the call off there; say whether it came to that place at all."""
        interruption = Interruption(place, INTERRUPTIONS[name][0])
        try:
            self._run(interruption, SHORT if name == "timeout" else LIMIT, name)
            wait_until(lambda: not self._on_servers(), 20, "the servers see the client go")
            wait_until(self._is_clean, 20)
        except BaseException as error:
            threads = [thread.name for thread in threading.enumerate()]
            text = f"{self._before} was held, {census()} is; threads: {threads}"
            raise AssertionError(f"broken off by {name!r} at {place}: {text}") from error
        return interruption.happened

    def _run(self, interruption: Interruption, timeout: float, name: str = "") -> None:
        operation = self._operation
        with interrupted(self._engine, interruption):
            client = operation.client()
            if name:
                interruption.act = functools.partial(INTERRUPTIONS[name][1], client, interruption)
            made = operation.made(client)
            try:
                interruption.active = True
                try:
                    operation.disturb(client)
                    operation.call(client, timeout)
                finally:
                    interruption.active = False
                    interruption.release(self._engine)
                made = operation.made(client)
            except MeteredTimeoutError:
                assert name in ("timeout", "cancel", "cancel, late")
            except MeteredError:
                assert name.startswith("close")
            except KeyboardInterrupt:
                assert name == "Ctrl-C"
            if interruption.happened and name.startswith("close"):
                wait_until(lambda: client.state == "closed")
                return
            try:
                wait_until(lambda: operation.made(client) == made, what="nothing half made")
                if interruption.happened:
                    operation.call(client, LIMIT)
            finally:
                client.close()

    def _on_servers(self) -> list[object]:
        """Return the connections and the sessions of clients that are gone."""
        other = self._operation.other_session

        async def look(servers: Any) -> list[object]:
            connected = [one for one in servers.sfu.sessions() if one.state == "connected"]
            left = [one for one in connected if one.session_id != other]
            return [*left, *servers.signalling.broker.sockets("ann")]

        return self._operation.cloud._do("look", None, look)

    def _is_clean(self) -> bool:
        """Say whether this process holds no more than before."""
        held = census()
        return all(held[name] <= count for name, count in self._before.items())


def break_off(kind: type[Operation], every: int = 1) -> None:
    """Break an operation off at all places, or at some of them: other ones each day."""
    timings = dataclasses.replace(DEFAULT_TIMINGS, stun_silence=kind.silence)
    with ExitStack() as stack:
        cloud = stack.enter_context(LocalCloud(limits=False, _timings=timings))
        steps = Steps(kind(cloud, stack))
        cases = [(place, name) for place in steps.places for name in INTERRUPTIONS]
        first = datetime.date.today().toordinal() % every
        came = [steps.break_off(name, place) for place, name in cases[first::every]]
        assert sum(came) >= len(came) // 3  # a place may be passed without waiting, another time


@pytest.mark.parametrize("kind", [Connect, ConnectToSfu, Publish])
def test_every_step(kind: type[Operation]) -> None:
    break_off(kind)


@pytest.mark.parametrize("kind", LONG)
def test_some_steps_of_what_takes_long(kind: type[Operation]) -> None:
    break_off(kind, SHARE)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", LONG)
def test_every_step_of_what_takes_long(kind: type[Operation]) -> None:
    break_off(kind)
