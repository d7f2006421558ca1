"""Test the choice of a proxy: the variables, odd addresses, and that messaging and REST agree."""

from __future__ import annotations

import asyncio
import io
import logging
import math
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from metered_sync import SignallingConnectError
from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.http import Http, HttpError
from metered_sync.engine.messaging.upgrade import open_socket
from metered_sync.engine.network.proxies import proxy_for
from tests.rules.test_secrets import shown
from tests.support.proxy import Proxying, proxying
from tests.support.scripted_service import ScriptedServer
from tests.support.seen import frames_of

HOST = "rms.example.test"
VARIABLES = [f"{kind}_proxy" for kind in ("http", "https", "all", "no", "ws", "wss", "socks")]
Attempt = Callable[[], BaseException | None]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


# --- which variable --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://a:1"}, "a:1 (HTTPS_PROXY)"),
        ({"https_proxy": "http://a:1"}, "a:1 (https_proxy)"),
        ({"https_proxy": "http://a:1", "HTTPS_PROXY": "http://b:1"}, "a:1 (https_proxy)"),
        ({"ALL_PROXY": "http://a:1"}, "a:1 (ALL_PROXY)"),
        ({"all_proxy": "http://a:1"}, "a:1 (all_proxy)"),
        ({"ALL_PROXY": "http://a:1", "HTTPS_PROXY": "http://b:1"}, "b:1 (HTTPS_PROXY)"),
        ({"HTTP_PROXY": "http://a:1"}, None),
        ({"WSS_PROXY": "http://a:1", "SOCKS_PROXY": "http://b:1"}, None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": HOST}, None),
        ({"HTTPS_PROXY": "http://a:1", "no_proxy": "x, .example.test"}, None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "*"}, None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "other.test"}, "a:1 (HTTPS_PROXY)"),
        ({"ALL_PROXY": "socks5h://a"}, "a:1080 (ALL_PROXY)"),
        ({"HTTPS_PROXY": "", "ALL_PROXY": "http://b:1"}, "b:1 (ALL_PROXY)"),
    ],
)
@pytest.mark.parametrize("scheme", ["https", "wss"])
def test_the_variable_that_counts(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], found: str | None, scheme: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    proxy = proxy_for(f"{scheme}://{HOST}", socks="socks")
    assert str(proxy) == (f"the proxy {found}" if found else "None")
    assert proxy_for(f"{scheme}://localhost:8", socks="socks") is None


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://h:3128", "http://h:3128"),
        ("http://h", "http://h:80"),
        ("h:3128", "http://h:3128"),
        ("//h:3128", "http://h:3128"),
        ("HTTP://h:3128/", "http://h:3128"),
        ("https://h", "https://h:443"),
        ("http://[::1]:3128", "http://[::1]:3128"),
        ("http://u:p@h:3128", "http://u:p@h:3128"),
        ("u:p@h:3128", "http://u:p@h:3128"),
        ("http://u:p/s@h:1", "http://u:p%2Fs@h:1"),
        ("http://u:p#s@h:1", "http://u:p%23s@h:1"),
        ("http://u:p?s@h:1", "http://u:p%3Fs@h:1"),
        ("http://u:p@s@h:1", "http://u:p%40s@h:1"),
        ("http://u:p:s@h:1", "http://u:p%3As@h:1"),
        ("http://u:p%40s@h:1", "http://u:p%40s@h:1"),
        ("http://u:p s%@h:1", "http://u:p%20s%25@h:1"),
        ("http://u@h:1", "http://u:@h:1"),
        (" http://h:1\n", "http://h:1"),
    ],
)
def test_an_address_is_read_in_one_way(
    monkeypatch: pytest.MonkeyPatch, address: str, url: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", address)
    proxy = proxy_for(f"https://{HOST}", socks="socks")
    assert proxy is not None
    assert proxy.url == url
    assert proxy.place in url
    assert "@" not in proxy.place


@pytest.mark.parametrize(
    "address",
    [
        "ftp://u:HUSH@h:1",
        "http://u:HUSH@",
        "http://u:HUSH@h:port",
        "http://u:HUSH@h:99999",
        "http://u:HUSH@h:0",
        "http://u:HUSH@h/path/to",
        "http://u:HUSH@h:1?x",
        "u:HUSH",
        "http://",
        "HUSH HUSH",
    ],
)
def test_what_is_no_address_is_not_shown(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("ALL_PROXY", address)
    with pytest.raises(ValueError, match="ALL_PROXY has no address of a proxy") as caught:
        proxy_for(f"https://{HOST}", socks="socks")
    assert "HUSH" not in frames_of(caught.value)


def test_a_missing_module_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://u:HUSH@h")
    with pytest.raises(ValueError, match=r"ALL_PROXY names a SOCKS .*metered_sync\[socks\]"):
        proxy_for(f"https://{HOST}", socks="no_module_of_this_name")


# --- through one -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


@pytest.fixture
def service(authority: trustme.CA) -> Iterator[ScriptedServer]:
    """A messaging service, which also answers REST with 426 ("Upgrade Required")."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    with ScriptedServer(ssl=context) as server:
        yield server


@pytest.fixture
def proxy(service: ScriptedServer) -> Iterator[Proxying]:
    with proxying(int(service.url.rpartition(":")[2])) as running:
        yield running


@pytest.fixture(params=["messaging", "rest"])
def attempt(request: pytest.FixtureRequest, trusted: str) -> Iterator[Attempt]:
    """Reach the service, by messaging or by REST; return why it was not reached."""
    http = Http(f"https://{HOST}", "sk_id_x:hush-hush", ca_file=trusted)

    async def dial() -> BaseException | None:
        try:
            socket = await open_socket(
                f"wss://{HOST}/v1?key=pk_live_x",
                label="c",
                origin=f"wss://{HOST}",
                ca_file=trusted,
                within=math.inf,
                close_timeout=1,
            )
        except SignallingConnectError as error:
            return error
        socket.abort()
        await socket.wait_closed()
        return None

    def call() -> BaseException | None:
        try:
            answer = asyncio.run(http.fetch("GET", "/v1", deadline=Deadline(20)))
        except HttpError as error:
            return error
        assert answer.status == 426
        return None

    by_rest = request.param == "rest"
    yield call if by_rest else lambda: asyncio.run(asyncio.wait_for(dial(), 30))
    http.close()


FORMS = [
    "http://user:HUSH@{}",
    "user:HUSH@{}",
    "http://user:HU/SH@{}",
    "http://user:HU#SH@{}",
    "http://user:HU?SH@{}",
    "http://user:HU@SH@{}",
    "http://user:HU%2fSH@{}/",
]


@pytest.mark.parametrize("form", FORMS)
def test_messaging_and_rest_reach_the_service_through_it(
    attempt: Attempt,
    proxy: Proxying,
    form: str,
    monkeypatch: pytest.MonkeyPatch,
    log: io.StringIO,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", form.format(proxy.place))
    assert attempt() is None
    head = proxy.asked[0]
    assert head.startswith(f"CONNECT {HOST}:443 HTTP/1.".encode())
    assert b"Proxy-Authorization: Basic " in head
    assert b"pk_live_x" not in head
    assert b"hush" not in head
    assert "HUSH" not in log.getvalue()


@pytest.mark.parametrize("variable", ["ALL_PROXY", "https_proxy"])
def test_socks_leads_there_too(
    attempt: Attempt, proxy: Proxying, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, f"socks5h://{proxy.place}")
    assert attempt() is None
    assert proxy.asked == [HOST.encode()]


@pytest.mark.parametrize(
    ("refusal", "form", "words"),
    [
        (b"407 Proxy Authentication Required", "http://{}", "wants a user name and a password"),
        (b"407 Proxy Authentication Required", FORMS[2], "does not accept the user name"),
        (b"502 Bad Gateway", FORMS[0], f"cannot reach {HOST}"),
        (b"403 Forbidden", FORMS[1], f"does not lead to {HOST}"),
        (b"418 Teapot", FORMS[0], f"did not connect to {HOST}"),
    ],
)
def test_its_refusals_are_told_as_what_they_are(
    attempt: Attempt,
    proxy: Proxying,
    refusal: bytes,
    form: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    log: io.StringIO,
) -> None:
    logging.getLogger("urllib3").setLevel(logging.DEBUG)
    monkeypatch.setattr("metered_sync.engine.http.FIRST_RETRY_DELAY", 0.01)
    monkeypatch.setenv("HTTPS_PROXY", form.format(proxy.place))
    proxy.refuse = refusal
    error = attempt()
    assert error is not None
    text = str(error)
    assert words in text
    assert f"the proxy {proxy.place} (HTTPS_PROXY)" in text
    assert f"(HTTP {refusal[:3].decode()} from the proxy)" in text
    seen = frames_of(error) + shown(error) + log.getvalue()
    assert not any(part in seen for part in ("HUSH", "HU/SH", "HU%2FSH", "dXNlcjpI"))
    assert not getattr(error, "sent", False)


@pytest.mark.parametrize("form", [*FORMS, "ftp://user:HUSH@{}", "http://user:HUSH@{}x"])
def test_a_proxy_that_is_not_there(
    attempt: Attempt, proxy: Proxying, form: str, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    monkeypatch.setattr("metered_sync.engine.http.FIRST_RETRY_DELAY", 0.01)
    monkeypatch.setenv("HTTPS_PROXY", form.format("127.0.0.1:9"))
    error = attempt()
    assert error is not None
    assert "HTTPS_PROXY" in str(error)
    seen = frames_of(error) + shown(error) + log.getvalue()
    assert not any(part in seen for part in ("HUSH", "HU/SH", "HU#SH", "HU@SH", "HU%2", "SH@"))
    assert not getattr(error, "sent", False)
