"""Test the HTTP call: answers, repetitions, deadlines, connections, forks, secrets."""

from __future__ import annotations

import asyncio
import gc
import gzip
import io
import logging
import os
import socket
import ssl
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from metered_sync.bridge.deadline import Deadline
from metered_sync.engine import http as http_module
from metered_sync.engine.http import Answer, Http, HttpError
from metered_sync.wire.secrets import ScrubbedError
from tests.conftest import run_script, wait_until
from tests.rules.test_secrets import shown
from tests.support.scripted_http import ScriptedHttp, serving

SECRET = "HUSH-hush/42+"


def fetch(http: Http, method: str, path: str, timeout: float = 5, **options: Any) -> Answer:
    return asyncio.run(http.fetch(method, path, deadline=Deadline(timeout), **options))


@pytest.fixture
def http(scripted: ScriptedHttp) -> Any:
    http = Http(scripted.origin, SECRET)
    yield http
    http.close()


# --- a request and its answer ---


@pytest.mark.parametrize("before", [True, False], ids=["patched before", "patched after"])
def test_patches_of_requests_do_not_reach_us(scripted: ScriptedHttp, before: bool) -> None:
    source = """
import asyncio, sys, requests, requests_cache
def patch():
    requests_cache.install_cache(backend="memory", allowable_methods=("GET", "POST"))
    requests.sessions.Session.request = requests.sessions.Session.send = None
if sys.argv[2] == "True":
    patch()
from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.http import Http
patch()
http = Http(sys.argv[1], "a secret")
for method in ("GET", "GET", "POST", "POST"):
    print(asyncio.run(http.fetch(method, "/same", json=1, deadline=Deadline(10))).body)
print(len(requests_cache.get_cache().responses))
"""
    scripted.script = [(200, {}, str(number).encode()) for number in range(4)]
    done = run_script(source, scripted.origin, str(before))
    assert done.stdout.split() == ["0", "1", "2", "3", "0"], done.stderr


def test_patches_of_the_way_to_the_network_do_reach_us(scripted: ScriptedHttp) -> None:
    source = """
import asyncio, io, sys, requests, urllib3
def send(self, request, **options):          # as `responses` does it
    body = io.BytesIO(b'"stands for the network"')
    raw = urllib3.HTTPResponse(body, {}, 200, preload_content=False)
    return self.build_response(request, raw)
from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.http import Http
requests.adapters.HTTPAdapter.send = send
print(asyncio.run(Http(sys.argv[1], "a secret").fetch("GET", "/", deadline=Deadline(10))).body)
"""
    done = run_script(source, scripted.origin)
    assert done.stdout == "stands for the network\n", done.stderr
    assert not scripted.asked


def test_a_request_and_its_answer(scripted: ScriptedHttp, http: Http) -> None:
    scripted.script = [(200, {}, b'{"a": [1]}'), (204, {}, b""), (404, {}, b"no such thing")]
    assert fetch(http, "POST", "/p?q=1", json={"x": "é"}) == Answer(200, {"a": [1]})
    assert fetch(http, "PUT", "/q") == Answer(204, None)
    answer = fetch(http, "GET", "/r")
    assert (answer.status, answer.body, answer.ok) == (404, "no such thing", False)
    first = scripted.asked[0]
    assert (first.method, first.path) == ("POST", "/p?q=1")
    assert first.headers["Authorization"] == f"Bearer {SECRET}"
    assert first.body == '{"x":"é"}'.encode()


def test_a_secret_that_goes_into_the_query(scripted: ScriptedHttp) -> None:
    http = Http(scripted.origin, SECRET, parameter="apiKey")
    scripted.script = [(200, {}, b"1"), (200, {}, b"2")]
    fetch(http, "GET", "/list?page=2")
    fetch(http, "GET", "/list")
    http.close()
    assert scripted.asked[0].path == "/list?page=2&apiKey=HUSH-hush%2F42%2B"
    assert scripted.asked[1].path == "/list?apiKey=HUSH-hush%2F42%2B"
    assert "Authorization" not in scripted.asked[0].headers


def test_redirects_are_not_followed_with_the_secret(scripted: ScriptedHttp, http: Http) -> None:
    scripted.script = [(302, {"Location": "http://127.0.0.1:9/"}, b"")]
    assert fetch(http, "GET", "/").status == 302


@pytest.mark.parametrize("parameter", [None, "apiKey"])
def test_a_netrc_file_does_not_replace_the_secret(
    scripted: ScriptedHttp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parameter: str | None
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    http = Http(scripted.origin, SECRET, parameter=parameter)
    scripted.script = [(200, {}, b"1")]
    fetch(http, "GET", "/")
    http.close()
    sent = scripted.asked[0].headers.get("Authorization")
    assert sent == (f"Bearer {SECRET}" if parameter is None else None)


# --- trying again ---


def test_safe_requests_are_repeated_and_others_are_not(scripted: ScriptedHttp, http: Http) -> None:
    scripted.script = [(503, {}, b""), (429, {}, b""), (0, {}, b""), (200, {}, b"1")]
    assert fetch(http, "GET", "/", safe=True).body == 1
    assert len(scripted.asked) == 4
    scripted.script = [(503, {}, b"{}")]
    assert fetch(http, "POST", "/").status == 503
    scripted.script = [(500, {}, b"")] * http_module.ATTEMPTS
    assert fetch(http, "GET", "/", safe=True).status == 500
    scripted.script = [(404, {}, b"")]
    assert fetch(http, "GET", "/", safe=True).status == 404
    assert scripted.script == []


def test_what_may_have_arrived_is_not_sent_again(scripted: ScriptedHttp, http: Http) -> None:
    scripted.script = [(0, {}, b""), (200, {}, b"")]
    with pytest.raises(HttpError) as caught:
        fetch(http, "POST", "/", json=1)
    assert caught.value.sent
    assert len(scripted.asked) == 1


@contextmanager
def at_first_retry(action: Any) -> Any:
    """Call ``action`` when the first attempt has failed."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "trying again" in record.getMessage():
                logger.removeHandler(self)
                action()

    logger, handler = logging.getLogger("metered_sync"), Handler()
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_what_never_left_is_sent_again(scripted: ScriptedHttp, monkeypatch: Any) -> None:
    # A port that refuses connections until the first attempt has failed.
    monkeypatch.setattr(http_module, "FIRST_RETRY_DELAY", 0.2)
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    seen = []

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            seen.append(connection.recv(65536))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n7")

    thread = threading.Thread(target=serve)

    def listen() -> None:
        server.listen()
        thread.start()

    http = Http(f"http://127.0.0.1:{server.getsockname()[1]}", SECRET)
    with server, at_first_retry(listen):
        assert fetch(http, "POST", "/", json=1, timeout=20) == Answer(200, 7)
        thread.join(20)
    http.close()
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0.05", 0.05),
        ("17", 17),
        ("Fri, 20 Nov 2026 12:00:17 GMT", 17),  # by the server's own clock
        ("Fri, 20 Nov 2026 11:00:00 GMT", 0),
        ("Fri, 20 Nov 2026 12:00:17 -0000", 0),  # no zone: cannot be compared
        ("-3", 0),
        ("nan", 0),
        ("inf", 0),
        ("soon", 0),
        ("", 0),
    ],
)
def test_retry_after_is_read(
    scripted: ScriptedHttp, http: Http, header: str, seconds: float
) -> None:
    scripted.script = [(429, {"Retry-After": header}, b"")]
    assert fetch(http, "POST", "/").retry_after == seconds


def test_retry_after_is_kept_to(scripted: ScriptedHttp, http: Http) -> None:
    scripted.script = [(503, {"Retry-After": "0.5"}, b""), (200, {}, b"1")]
    started = time.monotonic()
    assert fetch(http, "GET", "/", safe=True).body == 1
    assert time.monotonic() - started >= 0.5


@pytest.mark.parametrize("wait", ["30", str(http_module.MAX_RETRY_DELAY + 1)])
def test_nobody_waits_for_what_comes_too_late(
    scripted: ScriptedHttp, http: Http, wait: str
) -> None:
    scripted.script = [(503, {"Retry-After": wait}, b""), (200, {}, b"1")]
    started = time.monotonic()
    timeout = 5 if wait == "30" else 1000
    answer = fetch(http, "GET", "/", safe=True, timeout=timeout)
    assert (answer.status, answer.retry_after) == (503, float(wait))
    assert time.monotonic() - started < 5


# --- giving up ---


def test_an_abandoned_request_does_not_hold_anybody(scripted: ScriptedHttp, http: Http) -> None:
    scripted.wait = threading.Event()
    scripted.script = [(200, {}, b"late")]

    async def main() -> None:
        await asyncio.wait_for(http.fetch("GET", "/", deadline=Deadline(60)), 0.2)

    started = time.monotonic()
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(main())
    assert time.monotonic() - started < 20


def test_a_server_that_does_not_answer_in_time(
    scripted: ScriptedHttp, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_module, "ABANDONED_GRACE", 0.1)
    scripted.wait = threading.Event()
    scripted.script = [(200, {}, b"")]
    with pytest.raises(HttpError, match="too long") as caught:
        fetch(http, "GET", "/", timeout=0.2)
    assert caught.value.sent


@pytest.mark.parametrize("encoding", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_a_server_that_drips(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    """Its thread is free again at the deadline, though each read gets something."""
    monkeypatch.setattr(http_module, "ABANDONED_GRACE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):  # until the client leaves
                connection.recv(65536)
                connection.sendall(f"HTTP/1.1 200 OK\r\n{encoding}\r\n\r\n".encode())
                for _ in range(600):
                    connection.sendall(b"x" if "Length" in encoding else b"1\r\nx\r\n")
                    time.sleep(0.05)

        thread = threading.Thread(target=serve)
        thread.start()
        http = Http(f"http://127.0.0.1:{server.getsockname()[1]}", SECRET)
        with pytest.raises(HttpError, match="too slow"):
            fetch(http, "GET", "/", timeout=0.3)
        http.close()
        thread.join(20)
        assert not thread.is_alive()


def test_an_answer_without_end(
    scripted: ScriptedHttp, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_module, "MAX_ANSWER", 1000)
    scripted.script = [(200, {}, b'"' + b"x" * 998 + b'"'), (200, {}, b"x" * 1001)]
    assert len(fetch(http, "GET", "/").body) == 998
    with pytest.raises(HttpError, match="too long"):
        fetch(http, "GET", "/")


def test_compressed_answers(scripted: ScriptedHttp, http: Http) -> None:
    body = gzip.compress(b'{"a": "' + b"x" * 100_000 + b'"}')
    scripted.script = [(200, {"Content-Encoding": "gzip"}, body)]
    assert len(fetch(http, "GET", "/").body["a"]) == 100_000
    scripted.script = [(200, {"Content-Encoding": "gzip"}, b"not gzip")]
    with pytest.raises(HttpError):
        fetch(http, "GET", "/")


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        ("http://127.0.0.1:9", "connection refused"),
        ("http://no-such-host.invalid", "name"),
    ],
)
def test_why_no_answer_came(origin: str, words: str) -> None:
    http = Http(origin, SECRET, parameter="apiKey")
    with pytest.raises(HttpError, match=words) as caught:
        fetch(http, "GET", "/", timeout=20)
    http.close()
    assert not caught.value.sent
    # What requests raised names the address, with the secret in it.
    assert isinstance(caught.value.__cause__, ScrubbedError)
    assert caught.value.__context__ is None


def test_a_certificate_of_nobody_we_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    encoding = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem.write_bytes(key.private_bytes(encoding, *plain) + certificate.public_bytes(encoding))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()  # (once: another attempt would fail alike)
            with connection, suppress(OSError):
                context.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=serve)
        thread.start()
        http = Http(f"https://127.0.0.1:{server.getsockname()[1]}", SECRET)
        with pytest.raises(HttpError, match="authority that is not known here") as caught:
            fetch(http, "POST", "/", json=1, timeout=30)
        http.close()
        thread.join(10)
    assert not caught.value.sent
    assert caught.value.__context__ is None


def test_neither_logs_nor_errors_show_the_secret(scripted: ScriptedHttp, log: io.StringIO) -> None:
    output = []
    for parameter in (None, "apiKey", "secretKey"):
        http = Http(scripted.origin, SECRET, parameter=parameter)
        echo = f'{{"error": "you sent {SECRET}, HUSH-hush%2F42%2B"}}'.encode()
        scripted.script = [(200, {}, b"1"), (503, {}, echo), (401, {}, echo)]
        fetch(http, "GET", "/a", safe=True)
        output.append(shown(fetch(http, "GET", "/b", safe=True)))
        scripted.script = [(0, {}, b"")]
        with pytest.raises(HttpError) as caught:
            fetch(http, "POST", "/c")
        output.append(shown(caught.value))
        output.append(shown(http))
        http.close()
    everything = "\n".join(output) + log.getvalue()
    assert "GET /a" in everything  # urllib3's log is there ...
    assert "trying again" in everything
    assert "HUSH" not in everything  # ... without what was in it


# --- sessions ---


def test_one_connection_serves_requests_one_after_the_other(
    scripted: ScriptedHttp, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.script = [(200, {}, b"1")] * 6
    for _ in range(3):
        fetch(http, "GET", "/")
    assert len({asked.port for asked in scripted.asked}) == 1
    # One that has been idle for long may be dead without our knowing.
    monkeypatch.setattr(http_module, "MAX_IDLE_TIME", 0.0)
    for _ in range(3):
        fetch(http, "GET", "/")
    assert len({asked.port for asked in scripted.asked}) == 4


def test_no_two_requests_share_a_session(scripted: ScriptedHttp, http: Http) -> None:
    count = http_module.MAX_IDLE_SESSIONS + 4
    scripted.wait = threading.Event()
    scripted.script = [(200, {}, b"1")] * count
    with ThreadPoolExecutor(count) as pool:
        jobs = [pool.submit(fetch, http, "GET", "/", 20) for _ in range(count)]
        wait_until(lambda: len(scripted.asked) == count)  # all at once
        scripted.wait.set()
        assert all(job.result(20).body == 1 for job in jobs)
    assert len({asked.port for asked in scripted.asked}) == count
    assert len({id(session) for _, session in http._idle}) <= http_module.MAX_IDLE_SESSIONS


def open_sockets() -> int:
    return sum(
        os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
        for fd in os.listdir("/proc/self/fd")
        if os.path.islink(f"/proc/self/fd/{fd}")
    )


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts sockets in /proc")
@pytest.mark.parametrize("forget", [False, True], ids=["close", "forget"])
def test_connections_are_given_back(forget: bool) -> None:
    with serving() as scripted:
        http = Http(scripted.origin, SECRET)
        scripted.script = [(200, {}, b"1")]
        before = open_sockets()
        fetch(http, "GET", "/")
        assert open_sockets() > before
        if forget:
            gone = weakref.ref(http)
            del http
            wait_until(lambda: gc.collect() is not None and gone() is None)
        else:
            http.close()
        wait_until(lambda: open_sockets() <= before, what="the sockets are closed")


def test_a_request_in_flight_outlives_closing(scripted: ScriptedHttp, http: Http) -> None:
    scripted.wait = threading.Event()
    scripted.script = [(200, {}, b"1")]
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(fetch, http, "GET", "/")
        wait_until(lambda: scripted.asked)
        http.close()
        scripted.wait.set()
        assert job.result(10).body == 1
    wait_until(lambda: not http._idle)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_leaves_its_parents_connections_alone(scripted: ScriptedHttp) -> None:
    scripted.script = [(200, {}, b"1")] * 3
    source = f"""
import asyncio, os
from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.http import Http
http = Http({scripted.origin!r}, {SECRET!r})
def fetch(path):
    return asyncio.run(http.fetch("GET", path, deadline=Deadline(20))).body
assert fetch("/parent") == 1
child = os.fork()
if child == 0:
    os._exit(fetch("/child") - 1)
assert os.waitpid(child, 0)[1] == 0
assert fetch("/parent") == 1
"""
    done = run_script(source, PYTHONWARNINGS="ignore::DeprecationWarning")  # of fork() as such
    assert (done.returncode, done.stderr) == (0, "")
    first, second, third = (asked.port for asked in scripted.asked)
    assert first == third != second
