"""Test what is said of STUN and TURN servers, with a real coturn."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import trustme

from metered_sync import IceServer, doctor
from metered_sync.doctor import ice
from metered_sync.local import LocalCloud
from tests.doctor.test_reach import swallowing
from tests.support.coturn import SECRET, bad_path, free_port

WRONG = {"username": "1900000000:ann", "credential": "hush-hush-hush"}


def examine(stage: str, *urls: str, **options: Any) -> doctor.Finding:
    server = IceServer(urls, WRONG["username"], WRONG["credential"])
    report = doctor.run(only=f"ice,{stage}", ice_servers=[server], **options)
    assert WRONG["credential"] not in report.to_json()
    return report.stage(stage)


@pytest.fixture
def silent() -> Iterator[int]:
    """A UDP port that takes datagrams and does not answer."""
    with socket.socket(type=socket.SOCK_DGRAM) as end:
        end.bind(("127.0.0.1", 0))
        yield end.getsockname()[1]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no answer but for a moment."""
    monkeypatch.setattr(ice, "PATIENCE", 0.5)
    monkeypatch.setattr(ice, "RELAYING", 0.5)


def test_no_servers(shared_cloud: LocalCloud) -> None:
    """Neither the welcome nor keys name any: that is no warning."""
    options = {"url": shared_cloud.url, "api_key": shared_cloud.publishable_key}
    report = doctor.run(only="ice,stun,turn", **options)
    assert [finding.status for finding in report.stages] == ["skipped"] * 3
    assert report.verdict == "ok"


def test_only_stun(silent: int) -> None:
    report = doctor.run(only="ice", ice_servers=[f"stun:127.0.0.1:{silent}"])
    assert report.stage("ice").status == "warning"
    assert report.stage("ice").remedy.startswith("add TURN servers")


def test_the_turn_app_and_its_key(cloud: LocalCloud) -> None:
    options = {"turn_app": "local", "turn_url": cloud.http_url}
    found = doctor.run(only="ice", turn_api_key=cloud.turn_api_key, **options).stage("ice")
    assert (found.status, found.what) == ("ok", "1 STUN, 2 TURN, 0 of them over TLS")
    report = doctor.run(only="ice,stun", turn_api_key="wrong-wrong-wrong", **options)
    found = report.stage("ice")
    assert found.status == "failed"
    assert found.remedy.startswith("check METERED_TURN_APP and METERED_TURN_API_KEY")
    assert report.stage("stun").what == "not run, because ice failed"


@pytest.mark.usefixtures("impatient")
def test_stun_that_does_not_answer(silent: int) -> None:
    found = examine("stun", f"stun:127.0.0.1:{silent}")
    assert found.status == "failed"
    assert "does not answer: UDP may be blocked" in found.what
    assert f"ask for outgoing UDP to 127.0.0.1 port {silent} in the firewall" in found.remedy


def test_stun_that_answers(turn_port: int) -> None:
    found = examine("stun", f"stun:127.0.0.1:{turn_port}")
    assert found.status == "ok"
    assert "we are seen at 127.0.0.1" in found.what


def test_one_of_two_servers_is_a_warning(turn_port: int) -> None:
    urls = f"stun:127.0.0.1:{turn_port}", "stun:no-such-host.invalid:3478"
    found = examine("stun", *urls)
    assert found.status == "warning"
    assert "check the list of ICE servers" in found.remedy


def test_stun_whose_name_does_not_resolve() -> None:
    found = examine("stun", "stun:no-such-host.invalid:3478")
    assert found.status == "failed"
    assert "check the list of ICE servers" in found.remedy


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_turn_with_a_wrong_credential(turn_port: int, transport: str) -> None:
    found = examine("turn", f"turn:127.0.0.1:{turn_port}?transport={transport}")
    assert found.status == "failed"
    assert "refuses the credential (401)" in found.what
    assert found.remedy.startswith("get a fresh one: the user name or password is wrong")


@pytest.mark.usefixtures("impatient")
def test_turn_over_ports_that_swallow(silent: int) -> None:
    with swallowing() as tcp:
        urls = [f"turn:127.0.0.1:{silent}?transport=udp", f"turn:127.0.0.1:{tcp}?transport=tcp"]
        found = examine("turn", *urls)
    assert found.status == "failed"
    assert f"ask for outgoing UDP to 127.0.0.1 port {silent} in the firewall" in found.remedy
    assert f"ask for outgoing TCP to 127.0.0.1 port {tcp} in the firewall" in found.remedy


def test_turn_over_a_port_that_refuses() -> None:
    port = free_port()
    found = examine("turn", f"turn:127.0.0.1:{port}?transport=tcp")
    assert found.status == "failed"
    assert found.remedy == f"check that a server runs at 127.0.0.1 port {port}"


@contextlib.contextmanager
def tls_port() -> Iterator[int]:
    """A port whose certificate is signed by an authority that nobody knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    end, _ = listener.accept()
                    with contextlib.suppress(OSError), end:
                        end.settimeout(5)
                        context.wrap_socket(end, server_side=True).close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_turn_over_tls_by_an_unknown_authority() -> None:
    with tls_port() as port:
        found = examine("turn", f"turns:localhost:{port}?transport=tcp")
    assert found.status == "failed"
    assert "signed by an authority that is not known here" in found.what
    assert "pass ca_file=…, or set SSL_CERT_FILE" in found.remedy


@pytest.mark.parametrize("transport", ["udp", pytest.param("tcp", marks=pytest.mark.slow)])
def test_turn_that_relays(turn_port: int, transport: str) -> None:
    url = f"turn:127.0.0.1:{turn_port}?transport={transport}"
    with LocalCloud(ice_servers=[url], turn_secret=SECRET) as cloud:
        report = doctor.run(only="ice,turn", local=cloud)
    assert report.stage("ice").what == "0 STUN, 1 TURN, 0 of them over TLS"
    assert report.stage("turn").status == "ok", report
    assert "0% lost" in report.stage("turn").what


def test_turn_that_loses(turn_port: int) -> None:
    with (
        bad_path(turn_port, loss=0.3, spare_requests=True) as path,
        LocalCloud(
            ice_servers=[f"turn:127.0.0.1:{path.port}?transport=udp"], turn_secret=SECRET
        ) as cloud,
    ):
        found = doctor.run(only="turn", local=cloud).stage("turn")
    assert found.status == "failed"
    assert "try TURN over TCP or TLS, or another network" in found.remedy


@pytest.mark.slow
def test_peers_directly_and_relayed(turn_port: int) -> None:
    url = f"turn:127.0.0.1:{turn_port}?transport=udp"
    with LocalCloud(ice_servers=[url], turn_secret=SECRET) as cloud:
        found = doctor.run(only="peers", local=cloud).stage("peers")
    assert found.status == "ok", found
    assert "(host)" in found.what
    assert "relayed: connected in" in found.what
    assert "(relay)" in found.what
