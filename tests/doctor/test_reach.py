"""Test what is said where the service is not reached: names, ports, certificates, the clock."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from metered_sync import doctor
from metered_sync.doctor import reach
from metered_sync.doctor.surroundings import NO_NETWORK, has_network
from tests.support.coturn import free_port
from tests.support.scripted_service import WELCOME, ScriptedServer

KEY = "pk_live_0123456789abcdef"


def examine(stage: str, url: str, **options: Any) -> doctor.Finding:
    return doctor.run(only=stage, url=url, api_key=KEY, **options).stage(stage)


@contextlib.contextmanager
def swallowing() -> Iterator[int]:
    """A port that swallows: its queue is full, and the system drops what else comes."""
    with contextlib.ExitStack() as ends:
        listener = ends.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            end = ends.enter_context(socket.socket())
            end.setblocking(False)
            end.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_a_name_that_does_not_resolve() -> None:
    found = examine("dns", "wss://no-such-host.invalid")
    assert found.status == "failed"
    assert "no-such-host.invalid does not resolve" in found.what
    expected = "check METERED_URL for a slip, and this machine's name server (DNS)"
    assert found.remedy == (expected if has_network() else NO_NETWORK)


def test_the_usual_name_is_no_slip(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: Any, **options: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    found = doctor.run(only="dns", api_key=KEY).stage("dns")
    expected = "check this machine's network, and its name server (DNS)"
    assert found.remedy == (expected if has_network() else NO_NETWORK)


def test_a_proxy_whose_name_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://no-such-host.invalid:3128")
    found = examine("dns", "wss://rms.example")
    expected = "check HTTPS_PROXY for a slip, and this machine's name server (DNS)"
    assert found.remedy == (expected if has_network() else NO_NETWORK)


def test_a_port_that_refuses() -> None:
    found = examine("tcp", f"ws://127.0.0.1:{free_port()}")
    assert found.status == "failed"
    assert "nothing listens on that port" in found.what
    assert found.remedy == "check the host and port in METERED_URL, and that the server runs"


def test_a_port_that_swallows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "PATIENCE", 0.5)
    with swallowing() as port:
        found = examine("tcp", f"ws://127.0.0.1:{port}")
    assert found.status == "failed"
    assert "swallows the packets" in found.what
    assert f"ask for outgoing TCP to 127.0.0.1 port {port} in the firewall" in found.remedy


def test_a_port_that_accepts_and_never_shakes_hands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = examine("tls", f"wss://localhost:{server.getsockname()[1]}")
    assert found.status == "failed"
    assert "check that METERED_URL names a port that speaks TLS" in found.remedy


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA(organization_name="The Authority of Tests")


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with ScriptedServer(ssl=context) as server:
        yield f"wss://localhost:{server.url.rpartition(':')[2]}"


def test_a_certificate_by_an_unknown_authority(secure: str) -> None:
    found = examine("tls", secure)
    assert found.status == "failed"
    assert "signed by an authority that is not known here" in found.what
    assert "pass ca_file=…, or set SSL_CERT_FILE" in found.remedy


def test_who_has_signed(secure: str, authority: trustme.CA, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    found = examine("tls", secure, ca_file=str(path))
    assert found.status == "ok"
    assert "signed by The Authority of Tests" in found.what


def test_a_port_without_tls() -> None:
    with ScriptedServer() as server:
        found = examine("tls", f"wss://localhost:{server.url.rpartition(':')[2]}")
    assert found.status == "failed"
    assert found.remedy == "check METERED_URL: does it speak TLS on that port?"


@pytest.mark.parametrize(
    ("off", "status", "words"),
    [
        (0, "ok", "agrees"),
        (20, "ok", "agrees"),
        (90, "warning", "90 s behind"),
        (-90, "warning", "s ahead"),
        (400, "failed", "400 s behind"),
        (-400, "failed", "s ahead"),
    ],
)
def test_a_clock_that_is_wrong(off: float, status: str, words: str) -> None:
    def welcome(number: int) -> dict[str, Any]:
        return {**WELCOME, "serverTime": round(time.time() + off)}

    with ScriptedServer(welcome=welcome) as server:
        found = examine("clock", server.url)
    assert found.status == status
    assert words in found.what or abs(off) in (90, 400)  # (a second may have passed)
    if status != "ok":
        assert found.remedy.startswith("set the clock (NTP)")


def test_a_clock_without_a_welcome() -> None:
    """A token may have been refused because of the clock: an HTTP answer's date will do."""
    with ScriptedServer(status=lambda number: 401) as server:
        found = examine("clock", server.url)
    assert found.status == "ok"
