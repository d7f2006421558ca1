"""Test which certificates are trusted, and what is said of those that are not."""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import trustme

from metered_sync import (
    ControlPlane,
    MeteredError,
    MeteredPeer,
    SfuApi,
    SfuClient,
    SignallingClient,
    TurnApi,
)
from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.http import Http, HttpError
from metered_sync.engine.messaging.upgrade import open_socket
from tests.support.scripted_service import ScriptedServer

NOW = datetime.now(timezone.utc)
DAY = timedelta(days=1)
VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "our ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def context(authority: trustme.CA, name: str = "localhost", **dates: datetime) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, **dates).configure_cert(made)
    return made


def by_messaging(origin: str, ca_file: str | None) -> None:
    async def dial() -> None:
        made = await open_socket(
            f"{origin}/v1?key=pk_live_x", label="c", origin=origin, ca_file=ca_file,
            within=math.inf, close_timeout=1,
        )  # fmt: skip
        made.abort()
        await made.wait_closed()

    asyncio.run(asyncio.wait_for(dial(), 30))


def by_rest(origin: str, ca_file: str | None) -> None:
    http = Http("https" + origin[3:], "hush-hush", ca_file=ca_file)
    try:
        assert asyncio.run(http.fetch("GET", "/v1", deadline=Deadline(20))).status == 426
    finally:
        http.close()


both_ways = pytest.mark.parametrize("reach", [by_messaging, by_rest], ids=["messaging", "rest"])
Reach = Callable[[str, "str | None"], None]


def secure(server: ScriptedServer) -> str:
    return server.url.replace("ws://127.0.0.1", "wss://localhost")


@both_ways
@pytest.mark.parametrize("source", ["ca_file", *VARIABLES])
def test_a_private_authority_is_trusted(
    reach: Reach,
    source: str,
    authority: trustme.CA,
    trusted: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if source != "ca_file":
        monkeypatch.setenv(source, trusted)
    if source == "SSL_CERT_FILE":  # the first that is set holds
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/file")
    with ScriptedServer(ssl=context(authority)) as server:
        reach(secure(server), trusted if source == "ca_file" else None)


@both_ways
def test_the_option_goes_before_the_environment(
    reach: Reach, authority: trustme.CA, trusted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file")
    with ScriptedServer(ssl=context(authority)) as server:
        reach(secure(server), trusted)


@both_ways
@pytest.mark.parametrize(
    ("name", "dates", "words"),
    [
        ("localhost", {"not_before": NOW - 9 * DAY, "not_after": NOW - DAY}, "has expired"),
        ("localhost", {"not_before": NOW + DAY, "not_after": NOW + 9 * DAY}, "not valid yet"),
        ("other.test", {}, "is for another name than localhost"),
    ],
    ids=["expired", "not yet", "name"],
)
def test_certificates_of_known_authorities_that_do_not_hold(
    reach: Reach,
    name: str,
    dates: dict[str, Any],
    words: str,
    authority: trustme.CA,
    trusted: str,
) -> None:
    with ScriptedServer(ssl=context(authority, name, **dates)) as server:
        with pytest.raises((MeteredError, HttpError), match=words):
            reach(secure(server), trusted)
        assert server.upgrades == []


@both_ways
def test_an_authority_that_is_not_known(
    reach: Reach, authority: trustme.CA, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    with ScriptedServer(ssl=context(authority)) as server:
        words = r"authority that is not known here: pass ca_file=…, or set SSL_CERT_FILE"
        with pytest.raises((MeteredError, HttpError), match=words):
            reach(secure(server), None)
        with pytest.raises((MeteredError, HttpError), match=r"that is not in ca_file='.*other.pem"):
            reach(secure(server), str(other))


@both_ways
@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"220 mail\r\n", b""])
def test_a_port_without_tls(reach: Reach, answer: bytes) -> None:
    with answering(answer) as port, pytest.raises((MeteredError, HttpError), match="TLS on that p"):
        reach(f"wss://localhost:{port}", None)


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """Answer whatever comes with these bytes, and hang up."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                with client, suppress(OSError):
                    client.recv(65536)
                    client.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(20)


@both_ways
@pytest.mark.parametrize("variable", VARIABLES)
def test_a_variable_that_leads_to_no_certificates(
    reach: Reach, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate\n")
    with answering(b"") as port:
        for path, words in ((tmp_path / "none.pem", "no such file"), (empty, "no certificates")):
            monkeypatch.setenv(variable, str(path))
            with pytest.raises((MeteredError, HttpError), match=f"{variable}='.*' .*{words}"):
                reach(f"wss://localhost:{port}", None)


# --- every constructor that connects ------------------------------------------------------


def client(origin: str, **options: Any) -> None:
    with SignallingClient(api_key="pk_live_x", url=origin, **options):
        pass


def peer(origin: str, **options: Any) -> None:
    with MeteredPeer(api_key="pk_live_x", url=origin, **options) as one:
        one.join("room", timeout=20)


def control(origin: str, **options: Any) -> None:
    ControlPlane("sk_id_x", "sk_secret_x", url="https" + origin[3:], **options).usage()


def turn(origin: str, **options: Any) -> None:
    TurnApi("app", api_key="key", url="https" + origin[3:], **options).ice_servers()


def turn_secret(origin: str, **options: Any) -> None:
    TurnApi("app", secret_key="key", url="https" + origin[3:], **options).credentials()


def sfu_api(origin: str, **options: Any) -> None:
    SfuApi("app", "secret", "https" + origin[3:], **options).sessions()


def sfu(origin: str, **options: Any) -> None:
    with SfuClient(app_id="app", secret="secret", url="https" + origin[3:], **options):
        pass


ALL = [client, peer, control, turn, turn_secret, sfu_api, sfu]


@pytest.mark.parametrize("use", ALL, ids=lambda use: use.__name__)
def test_each_constructor_takes_the_file(
    use: Callable[..., None], authority: trustme.CA, trusted: str
) -> None:
    with ScriptedServer(ssl=context(authority)) as server:
        with pytest.raises(MeteredError, match="authority that is not known here"):
            use(secure(server))
        assert server.upgrades == []
        by_rest = use not in (client, peer)  # which this server answers with 426, or not at all
        with pytest.raises(MeteredError) if by_rest else nullcontext() as caught:
            use(secure(server), ca_file=Path(trusted))
        if caught is not None:
            assert "certificate" not in str(caught.value)


@pytest.mark.parametrize("use", ALL, ids=lambda use: use.__name__)
def test_each_constructor_refuses_what_is_no_such_file(
    use: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "x.pem").write_text("nothing")
    for value, kind, words in (
        (tmp_path / "none", ValueError, "cannot be read: no such file"),
        (tmp_path, ValueError, "is a folder"),
        (tmp_path / "x.pem", ValueError, "has no certificates"),
        (True, TypeError, "the path of a file, not bool"),
    ):
        with pytest.raises(kind, match=f"ca_file.*{words}"):
            use("wss://localhost:9", ca_file=value)
