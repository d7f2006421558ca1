"""Give tests of applications a local cloud, clients of it, and a look at what went over the wire.

pytest loads this module by itself where the package is installed (entry point ``pytest11``); it
loads nothing in turn, until a test asks for a fixture. docs/testing.md is the guide.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from metered_sync.client import SignallingClient
    from metered_sync.local import LocalCloud
    from metered_sync.peer import MeteredPeer
    from metered_sync.sfu import SfuClient

__all__ = ["SharedCloud"]

MARK_OPTIONS = ("limits", "permissions", "max_messages", "max_connections")
"""The arguments of a local cloud that the marker takes."""
MARKER = (
    "metered(limits=True, permissions=[...], max_messages=..., max_connections=...): "
    "give the test a local cloud of its own, made with these options"
)
CLAIMS = ("channels", "permissions", "ttl", "metadata", "peer_metadata")
"""The arguments of a factory that go into the token; all others go to what it makes."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option ``--metered-leaks``."""
    parser.getgroup("metered_sync").addoption(
        "--metered-leaks",
        action="store_true",
        help="fail tests that leave clients, threads or sockets of metered_sync open",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker; load the leak check where it is wanted."""
    config.addinivalue_line("markers", MARKER)
    if config.getoption("--metered-leaks"):
        from metered_sync.testing import leaks

        config.pluginmanager.register(leaks, "metered_sync.testing.leaks")


class SharedCloud:
    """The local cloud that tests take turns with; started by the first one that needs it."""

    def __init__(self) -> None:
        self._cloud: LocalCloud | None = None

    def get(self) -> LocalCloud:
        """Return the cloud, serving."""
        if self._cloud is None:
            self._cloud = _start({})
        return self._cloud

    def clean(self) -> None:
        """Make it as new for the next test; a new one where a test has closed it."""
        from metered_sync.errors import MeteredError

        if self._cloud is not None:
            try:
                self._cloud.reset()
            except MeteredError:
                self.close()

    def close(self) -> None:
        """Close it, if there is one."""
        cloud, self._cloud = self._cloud, None
        if cloud is not None:
            cloud.close()


def _start(options: dict[str, Any]) -> LocalCloud:
    from metered_sync.local import LocalCloud

    cloud = LocalCloud(**options)
    cloud.start()
    cloud.log.clear()  # it records from this first look on
    return cloud


def _marked(node: Any) -> dict[str, Any] | None:
    """Return the options of a test's markers, the nearest winning; ``None`` without marker."""
    marks = list(node.iter_markers("metered"))
    options: dict[str, Any] = {}
    for mark in reversed(marks):
        unknown = [repr(value) for value in mark.args]
        unknown += [name for name in mark.kwargs if name not in MARK_OPTIONS]
        if unknown:
            pytest.fail(
                f"{node.nodeid}: the marker metered takes {', '.join(MARK_OPTIONS)} by name, "
                f"not {', '.join(unknown)}",
                pytrace=False,
            )
        options.update(mark.kwargs)
    return options if marks else None


@pytest.fixture(scope="session")
def _metered_shared_cloud() -> Iterator[SharedCloud]:
    shared = SharedCloud()
    yield shared
    shared.close()


@pytest.fixture
def local_cloud(
    request: pytest.FixtureRequest, _metered_shared_cloud: SharedCloud
) -> Iterator[LocalCloud]:
    """A local cloud, which is as new for each test; with the marker, one made for the test."""
    options = _marked(request.node)
    if options is None:
        yield _metered_shared_cloud.get()
        _metered_shared_cloud.clean()
    else:
        with _start(options) as cloud:
            yield cloud


@pytest.fixture
def fresh_cloud(request: pytest.FixtureRequest) -> Iterator[LocalCloud]:
    """A local cloud that this test alone uses, with keys and ports of its own."""
    with _start(_marked(request.node) or {}) as cloud:
        yield cloud


@pytest.fixture
def metered_env(local_cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables ``METERED_*`` of the environment, which lead to ``local_cloud``.

    All others of that beginning are gone during the test, lest real keys are used.
    """
    variables = {
        "METERED_KEY": local_cloud.publishable_key,
        "METERED_URL": local_cloud.url,
        "METERED_KEY_ID": local_cloud.key_id,
        "METERED_KEY_SECRET": local_cloud.key_secret,
        "METERED_SFU_APP_ID": local_cloud.sfu_app_id,
        "METERED_SFU_SECRET": local_cloud.sfu_secret,
        "METERED_SFU_URL": local_cloud.http_url,
    }
    for name in tuple(os.environ):
        if name.startswith("METERED_") and not name.startswith("METERED_SYNC_"):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def metered_client(
    local_cloud: LocalCloud, request: pytest.FixtureRequest
) -> Iterator[Callable[..., SignallingClient]]:
    """A function that returns connected clients: ``metered_client("ann", channels=["chat"])``.

    It takes a peer id, the claims of ``mint_token``, and options of ``SignallingClient``.
    Without peer id and claims the client uses the publishable key. Clients are closed at the
    test's end.
    """
    with ExitStack() as opened:

        def connect(peer_id: str | None = None, **options: Any) -> SignallingClient:
            from metered_sync import SignallingClient

            given = _with_token(local_cloud, request, peer_id, options)
            return opened.enter_context(SignallingClient(**given))

        yield connect


@pytest.fixture
def metered_peer(
    local_cloud: LocalCloud, request: pytest.FixtureRequest
) -> Iterator[Callable[..., MeteredPeer]]:
    """A function that returns peers: ``metered_peer("ann", media="sfu").join("room")``.

    It takes what ``metered_client`` takes, and options of ``MeteredPeer``. Peers have not
    joined yet, and are closed at the test's end.
    """
    with ExitStack() as opened:

        def make(peer_id: str | None = None, **options: Any) -> MeteredPeer:
            from metered_sync import MeteredPeer, SfuMedia

            given = _with_token(local_cloud, request, peer_id, options)
            if given.get("media") == "sfu":
                given["media"] = SfuMedia(**local_cloud.sfu_options())
            return opened.enter_context(MeteredPeer(**given))

        yield make


@pytest.fixture
def sfu_client(local_cloud: LocalCloud) -> Iterator[Callable[..., SfuClient]]:
    """A function that returns connected SFU clients, with the options of ``SfuClient``.

    They are closed at the test's end.
    """
    with ExitStack() as opened:

        def connect(**options: Any) -> SfuClient:
            from metered_sync import SfuClient

            return opened.enter_context(SfuClient(**{**local_cloud.sfu_options(), **options}))

        yield connect


def _with_token(
    cloud: LocalCloud, request: pytest.FixtureRequest, peer_id: str | None, options: dict[str, Any]
) -> dict[str, Any]:
    """Return the options of a client or peer, its claims replaced by a token, or by the key."""
    claims = {name: options.pop(name) for name in CLAIMS if name in options}
    if peer_id is None:
        if claims:
            raise TypeError(
                f"a token needs a peer_id; without one, {', '.join(claims)} says nothing"
            )
        return {**cloud.client_options(), **options}
    marked = _marked(request.node) or {}
    if "permissions" in marked:
        claims.setdefault("permissions", marked["permissions"])
    return {**cloud.token_options(peer_id, **claims), **options}
