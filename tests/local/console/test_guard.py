"""Test whom the console admits, and what its pages may load."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from metered_sync import ClosedError, MeteredError, NotConnectedError
from metered_sync.local import LocalCloud

Answer = tuple[int, dict[str, str], str]
OTHER_HOSTS = (
    "example.com", "example.com:{port}", "127.0.0.1", "127.0.0.1:1", "evil@127.0.0.1:{port}", "",
    "127.0.0.1.example.com:{port}", "127.0.0.1:{port}x", "[::1", "localhost:{port}/",
)  # fmt: skip
OTHER_ORIGINS = (
    "null", "", "http://example.com", "http://127.0.0.1", "http://127.0.0.1:1",
    "https://127.0.0.1:{port}", "http://localhost:{port}", "http://127.0.0.1:{port}/",
)  # fmt: skip


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(console=True) as cloud:
        yield cloud


def ask(url: str, method: str = "GET", **headers: str) -> Answer:
    """Ask for an address, with these headers exactly; return status, headers and text."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.putrequest(method, f"{parts.path}?{parts.query}", skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read().decode()
    finally:
        connection.close()


def bare(cloud: LocalCloud) -> str:
    return cloud.console_url.partition("?")[0]


def test_the_address_opens_the_page(cloud: LocalCloud) -> None:
    status, headers, text = ask(cloud.console_url)
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert text.startswith("<!doctype html>")
    token = cloud.console_url.partition("?token=")[2]
    assert token not in text
    assert ask(bare(cloud), Authorization=f"Bearer {token}")[0] == 200
    with LocalCloud(console=True) as other:
        assert other.console_url.partition("?")[2] != cloud.console_url.partition("?")[2]


@pytest.mark.parametrize("query", ["", "?token=", "?token=wrong", "?token=%ff", "?Token="])
def test_without_the_token_it_is_401(cloud: LocalCloud, query: str) -> None:
    status, _, text = ask(bare(cloud) + query)
    assert status == 401
    assert "console_url" in text
    assert ask(bare(cloud) + query, Authorization="Bearer wrong")[0] == 401


def test_files_need_no_token(cloud: LocalCloud) -> None:
    for name, kind in (
        ("console.js", "text/javascript"),
        ("console.css", "text/css"),
        ("base.css", "text/css"),
    ):
        status, headers, _ = ask(f"{bare(cloud)}static/{name}")
        assert status == 200
        assert headers["Content-Type"] == f"{kind}; charset=utf-8"
        assert headers["X-Content-Type-Options"] == "nosniff"
    for name in ("console.html", "nothing.js", "..%2fserver.py", "%2e%2e/__init__.py", ""):
        assert ask(f"{bare(cloud)}static/{name}")[0] == 404


@pytest.mark.parametrize("host", OTHER_HOSTS)
@pytest.mark.parametrize("path", ["", "static/console.js"])
def test_another_host_is_403(cloud: LocalCloud, host: str, path: str) -> None:
    url = cloud.console_url.replace("/console/", f"/console/{path}")
    status, headers, _ = ask(url, Host=host.format(port=cloud.port))
    assert status in (400, 403)
    assert status == 403 or not host
    assert "example.com" not in headers.get("Content-Security-Policy", "")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_each_name_of_this_machine_will_do(cloud: LocalCloud, host: str) -> None:
    authority = f"{host}:{cloud.port}"
    assert ask(cloud.console_url, Host=authority, Origin=f"http://{authority}")[0] == 200


@pytest.mark.parametrize("origin", OTHER_ORIGINS)
@pytest.mark.parametrize("path", ["", "static/console.js"])
def test_another_origin_is_403(cloud: LocalCloud, origin: str, path: str) -> None:
    url = cloud.console_url.replace("/console/", f"/console/{path}")
    assert ask(url, Origin=origin.format(port=cloud.port))[0] == 403
    assert ask(url, Origin=f"http://127.0.0.1:{cloud.port}")[0] == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "events"),
        ("GET", "keys"),
        ("POST", "kick"),
        ("POST", "fault"),
        ("POST", "clear"),
        ("POST", "join-path"),
        ("GET", "api/sfu/{app}/sessions"),
        ("POST", "api/sfu/{app}/session/new"),
    ],
)
def test_each_route_is_guarded(cloud: LocalCloud, method: str, path: str) -> None:
    path = path.format(app=cloud.sfu_app_id)
    url = cloud.console_url.replace("/console/", f"/console/{path}")
    assert ask(url.partition("?")[0], method)[0] == 401
    assert ask(url, method, Origin="null")[0] == 403
    assert ask(url, method, Origin="http://example.com")[0] == 403
    assert ask(url, method, Host="example.com")[0] == 403
    if method == "POST":
        assert ask(url, "GET")[0] == 405
        assert ask(url, method)[0] == (200 if path == "clear" else 400)


def test_every_answer_says_what_a_page_may_load(cloud: LocalCloud) -> None:
    for url in (cloud.console_url, bare(cloud), f"{bare(cloud)}static/console.js"):
        _, headers, _ = ask(url)
        policy = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == "'self'"
        assert policy["connect-src"] == f"'self' ws://127.0.0.1:{cloud.port}"
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert "http://localhost:*" in policy["frame-ancestors"]
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"


def test_without_console_there_is_none() -> None:
    with LocalCloud() as cloud:
        with pytest.raises(MeteredError, match=r"LocalCloud\(console=True\)"):
            cloud.console_url  # noqa: B018
        assert ask(f"{cloud.http_url}/console/")[0] == 404
    cloud = LocalCloud(console=True)
    with pytest.raises(NotConnectedError, match=r"console_url: .*start\(\)"):
        cloud.console_url  # noqa: B018
    cloud.close()
    with pytest.raises(ClosedError):
        cloud.console_url  # noqa: B018
