"""The examples of web applications, as they stand, under real servers."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from metered_sync import ControlPlane, Message, ServerRequestError, SignallingClient
from tests.conftest import ROOT, wait_until
from tests.support.event_source import event_source
from tests.support.webservers import gunicorn

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs POSIX")
EXAMPLES = ROOT / "examples"
FLASK, DJANGO = EXAMPLES / "flask", EXAMPLES / "django"
SERVERS = {
    "prefork": ("--workers", "2"),
    "prefork, preload": ("--workers", "2", "--preload"),
    "threads": ("--worker-class", "gthread", "--workers", "1", "--threads", "4"),
    "threads, preload": ("--workers", "2", "--threads", "4", "--preload"),
    "gevent": ("--worker-class", "gevent", "--workers", "1"),
}
GRACE = ("--graceful-timeout", "1")
"""Seconds that open streams hold up the end of a server, which sees later that no page reads."""
CUT = "Worker graceful timeout"
"""What gevent's worker says of them then, if it still comes to that."""


def servers(*usual: str) -> pytest.MarkDecorator:
    """Return the mark of a test for all servers, of which these are in the short run, too."""
    each = [
        pytest.param(options, id=name, marks=() if name in usual else pytest.mark.slow)
        for name, options in SERVERS.items()
    ]
    return pytest.mark.parametrize("options", each)


MESSAGES = 24


def one_at_a_time(options: tuple[str, ...]) -> bool:
    """Say whether a worker that streams can do nothing else."""
    return "--threads" not in options and "gevent" not in options


@pytest.fixture
def environment(served_cloud: dict[str, str]) -> dict[str, str]:
    return {
        "METERED_URL": served_cloud["url"],
        "METERED_KEY_ID": served_cloud["key_id"],
        "METERED_KEY_SECRET": served_cloud["key_secret"],
        "FLASK_SECRET_KEY": "only for this test",
        "DJANGO_SECRET_KEY": "only for this test",
    }


@pytest.fixture
def control(served_cloud: dict[str, str]) -> Iterator[ControlPlane]:
    with ControlPlane(
        served_cloud["key_id"], served_cloud["key_secret"], url=served_cloud["http_url"]
    ) as control:
        yield control


@contextmanager
def nothing_left(control: ControlPlane) -> Iterator[None]:
    """After the block, as many connections are open as before: workers have closed theirs."""
    before = control.usage().concurrent_now
    yield
    wait_until(lambda: control.usage().concurrent_now == before, what="connections are closed")


def ok(response: requests.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def chat(
    listener: SignallingClient,
    speak: Callable[[int], requests.Response],
    members: Callable[[], requests.Response],
    *,
    name: str,
    events: tuple[str, dict[str, str]] | None,
) -> None:
    """Go through what both examples offer.

    ``events`` is the address of the room's events, with cookies; ``None`` where each worker does
    one thing at a time.
    """
    inbox = listener.subscribe("rooms/lobby")
    assert ok(members()) == {listener.peer_id: name}
    with ExitStack() as open_pages, ThreadPoolExecutor(4) as pool:
        pages = []
        for _ in range(2 if events else 0):
            url, cookies = events or ("", {})
            pages.append(open_pages.enter_context(event_source(url, cookies=cookies)))
        senders = {ok(answer)["sender"] for answer in pool.map(speak, range(MESSAGES))}
        expected = sorted(f"text {number}" for number in range(MESSAGES))
        for page in pages:
            assert sorted(page.read()["text"] for _ in range(MESSAGES)) == expected
        assert ok(members()) == {listener.peer_id: name}  # the server's own are not shown
    messages: list[Message] = [inbox.get(timeout=20) for _ in range(MESSAGES)]
    assert sorted(message.data["text"] for message in messages) == expected
    assert {message.data["from"] for message in messages} == {name}
    # Each worker has a connection of its own, and one only to speak with.
    assert {message.sender_peer_id for message in messages} == senders
    assert len({sender.rpartition("-")[0] for sender in senders}) == len(senders)
    with pytest.raises(ServerRequestError, match="action_not_permitted"):
        listener.publish("rooms/lobby", "past the server")


ODD_BODIES = (
    '{"text": "\\ud800", "name": "\\ud800"}',
    '{"text": 7, "name": 7}',
    '{"text": ["x"], "name": {}}',
    '["text", "name"]',
    '"text"',
    "7",
    "null",
    "{}",
    "no JSON",
    "[" * 60_000,
    '{"text":' * 60_000 + "1",
)


def post(
    user: requests.Session, url: str, body: str, headers: dict[str, str] | None = None
) -> requests.Response:
    """Post a body as it is."""
    return user.post(url, body, headers={"Content-Type": "application/json", **(headers or {})})


# --- Flask ------------------------------------------------------------------------------


@servers("prefork", "threads, preload")
def test_flask(
    options: tuple[str, ...], environment: dict[str, str], control: ControlPlane, tmp_path: Path
) -> None:
    server = gunicorn(
        FLASK, "app:app", environment, tmp_path / "log", *options, *GRACE, expected=CUT
    )
    with nothing_left(control), server as url, requests.Session() as user:
        room = f"{url}/rooms/lobby"
        assert requests.post(f"{url}/token").status_code == 401
        assert requests.post(f"{room}/messages", json={"text": "x"}).status_code == 401
        assert requests.get(f"{room}/events").status_code == 401
        assert user.post(f"{url}/login", json={"name": ""}).status_code == 400
        ok(user.post(f"{url}/login", json={"name": "Ännchen"}))
        assert user.post(f"{url}/rooms/no_such/messages", json={}).status_code == 404
        assert user.post(f"{url}/rooms/{'x' * 41}/messages", json={}).status_code == 404
        for body in ODD_BODIES:
            for path in (f"{room}/messages", f"{url}/login"):
                assert post(user, path, body).status_code == 400, body[:60]

        token = ok(user.post(f"{url}/token"))["token"]
        cookies = user.cookies.get_dict()
        with SignallingClient(token_provider=token, url=environment["METERED_URL"]) as listener:
            chat(
                listener,
                lambda number: requests.post(
                    f"{room}/messages", json={"text": f"text {number}"}, cookies=cookies
                ),
                lambda: user.get(f"{room}/members"),
                name="Ännchen",
                events=None if one_at_a_time(options) else (f"{room}/events", cookies),
            )


@pytest.mark.parametrize("options", [(), ("--threads", "4")], ids=["sync", "gthread"])
def test_a_worker_outlives_its_connection(
    options: tuple[str, ...], environment: dict[str, str], control: ControlPlane, tmp_path: Path
) -> None:
    """Disconnected for good, a worker opens another connection for the next request."""
    log = tmp_path / "log"
    server = gunicorn(FLASK, "app:app", environment, log, *options, expected="WARNING in app")
    with server as url, requests.Session() as user:
        ok(user.post(f"{url}/login", json={"name": "Ann"}))

        def speak() -> requests.Response:
            return user.post(f"{url}/rooms/lobby/messages", json={"text": "x"})

        wait_until(lambda: speak().status_code == 200)  # (it has just begun)
        sender = ok(speak())["sender"]
        assert control.disconnect(sender) == 1
        wait_until(lambda: speak().status_code == 200)
        another = ok(speak())["sender"]
        assert another != sender
        assert another.rpartition("-")[0] == sender.rpartition("-")[0]  # of the same process


# --- Django -----------------------------------------------------------------------------


def manage(environment: dict[str, str], *arguments: str, **more: str) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=DJANGO,
        env={**os.environ, **environment, **more, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


MAKE_USER = """
from django.contrib.auth.models import Group, User
user = User.objects.create_user("ann", password="only for this test")
user.groups.add(Group.objects.create(name="lobby"))
"""


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a user in it, made once."""
    path = tmp_path_factory.mktemp("django") / "db.sqlite3"
    keys = {"METERED_KEY_ID": "sk_id_x", "METERED_KEY_SECRET": "sk_secret_x", "DATABASE": str(path)}
    manage(keys, "migrate", "--verbosity", "0")
    manage(keys, "shell", "--command", MAKE_USER)
    return path


def log_in(url: str, user: requests.Session) -> dict[str, str]:
    """Log in to the Django example; return the headers to post with."""
    login = f"{url}/login/"
    assert user.get(login).status_code == 200
    form = {"username": "ann", "password": "only for this test"}
    form["csrfmiddlewaretoken"] = user.cookies["csrftoken"]
    page = user.post(f"{login}?next=/", data=form, headers={"Referer": login})
    assert (page.status_code, page.url) == (200, f"{url}/")
    assert "Hello ann." in page.text
    return {"X-CSRFToken": user.cookies["csrftoken"]}


@servers("prefork, preload", "threads", "gevent")
def test_django(
    options: tuple[str, ...],
    environment: dict[str, str],
    control: ControlPlane,
    tmp_path: Path,
    database: Path,
) -> None:
    environment["DATABASE"] = str(database)
    server = gunicorn(
        DJANGO, "chat.wsgi", environment, tmp_path / "log", *options, *GRACE, expected=CUT
    )
    with nothing_left(control), server as url, requests.Session() as user:
        room = f"{url}/rooms/lobby"
        stranger = requests.get(f"{room}/members/", allow_redirects=False)
        assert (stranger.status_code, "/login/" in stranger.headers["Location"]) == (302, True)
        headers = log_in(url, user)
        cookies = user.cookies.get_dict()
        assert user.post(f"{url}/token/").status_code == 403  # no CSRF token
        assert user.post(f"{room}/messages/", data="no JSON", headers=headers).status_code == 400
        assert user.post(f"{url}/rooms/a.b/messages/", headers=headers).status_code == 404
        for body in ODD_BODIES:
            assert post(user, f"{room}/messages/", body, headers).status_code == 400, body[:60]
        other = f"{url}/rooms/another"  # she is in no such group
        assert post(user, f"{other}/messages/", '{"text": "x"}', headers).status_code == 403
        assert user.get(f"{other}/members/").status_code == 403
        assert user.get(f"{other}/events/").status_code == 403

        token = ok(user.post(f"{url}/token/", headers=headers))["token"]
        with SignallingClient(token_provider=token, url=environment["METERED_URL"]) as listener:
            with pytest.raises(ServerRequestError, match="channel_not_authorized"):
                listener.subscribe("rooms/another")  # she is in no such group
            chat(
                listener,
                lambda number: requests.post(
                    f"{room}/messages/",
                    json={"text": f"text {number}"},
                    headers=headers,
                    cookies=cookies,
                ),
                lambda: user.get(f"{room}/members/"),
                name="ann",
                events=None if one_at_a_time(options) else (f"{room}/events/", cookies),
            )


# --- both -------------------------------------------------------------------------------


@pytest.mark.parametrize("example", [FLASK, DJANGO], ids=lambda example: example.name)
def test_messaging_that_is_down(
    example: Path, environment: dict[str, str], tmp_path: Path, database: Path
) -> None:
    """Users are told, the log says why, and neither shows a key."""
    environment |= {"METERED_URL": "ws://127.0.0.1:9", "DATABASE": str(database)}
    app, end = ("app:app", "") if example == FLASK else ("chat.wsgi", "/")
    log = tmp_path / "log"
    server = gunicorn(example, app, environment, log, expected="connect|ControlPlane|unavailable")
    with server as url, requests.Session() as user:
        if example == FLASK:
            ok(user.post(f"{url}/login", json={"name": "Ann"}))
            headers = {}
        else:
            headers = log_in(url, user)
        told = user.post(f"{url}/rooms/lobby/messages{end}", json={"text": "x"}, headers=headers)
        assert (told.status_code, told.json()) == (503, {"error": "messaging is not available"})
        assert user.get(f"{url}/rooms/lobby/members{end}").status_code == 503
    assert "refused" in log.read_text()
    for name in ("METERED_KEY_SECRET", "FLASK_SECRET_KEY"):
        assert environment[name] not in log.read_text()


@pytest.mark.parametrize(
    "example",
    [pytest.param(FLASK, marks=pytest.mark.slow), DJANGO],
    ids=lambda example: example.name,
)
def test_a_silent_service_holds_up_nobody_twice(
    example: Path, environment: dict[str, str], tmp_path: Path, database: Path
) -> None:
    """One request waits for the connection; those that wait for that one do not wait again."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        port = silent.getsockname()[1]
        environment |= {"METERED_URL": f"ws://127.0.0.1:{port}", "DATABASE": str(database)}
        app, end = ("app:app", "") if example == FLASK else ("chat.wsgi", "/")
        options = ("--workers", "1", "--threads", "6")
        log = tmp_path / "log"
        server = gunicorn(
            example, app, environment, log, *options, expected="WARN|not finished|a moment ago"
        )
        with server as url, requests.Session() as user:
            headers = {}
            if example == FLASK:
                ok(user.post(f"{url}/login", json={"name": "Ann"}))
            else:
                headers = log_in(url, user)
            cookies = user.cookies.get_dict()

            def speak(_: int) -> int:
                path, body = f"{url}/rooms/lobby/messages{end}", {"text": "x"}
                told = requests.post(path, json=body, headers=headers, cookies=cookies)
                return told.status_code

            begin = time.monotonic()
            with ThreadPoolExecutor(4) as pool:
                assert set(pool.map(speak, range(4))) <= {503, 504}
            assert time.monotonic() - begin < 9  # (the connection may take 5)


def test_the_room_for_browsers_on_a_local_cloud() -> None:
    """What its README says; tests/scenarios/browser/test_room_over_sfu.py has the page itself."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "server.py", "--local", "--port", str(port)]
    with subprocess.Popen(
        command,
        cwd=EXAMPLES / "browser_room",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:

            def answers() -> bool:
                try:
                    return requests.get(url, timeout=20).status_code == 200
                except requests.RequestException:  # not listening yet
                    return False

            wait_until(answers, 60)
            script = requests.get(f"{url}/room.js", timeout=20)
            assert script.headers["Content-Type"].startswith("text/javascript")
            assert script.text == (EXAMPLES / "browser_room" / "room.js").read_text()
            for body in (*ODD_BODIES, '{"page": "short"}'):
                assert post(requests.Session(), f"{url}/token", body).status_code == 400, body[:60]
            pages = [{"page": "of one " * 5}, {"page": "of another " * 3}, {"page": "\ud800" * 20}]
            held = [ok(requests.post(f"{url}/token", json=page)) for page in pages * 2]
            ids = []
            for one in held:
                with SignallingClient(token_provider=one["token"], url=one["url"]) as client:
                    client.subscribe("rooms/lobby")
                    ids.append(client.peer_id)
            assert (len(set(ids)), ids[:3]) == (3, ids[3:])  # one for each page, and it stays
            call = f"{url}/sfu/session/new"
            assert requests.post(call, json={}, timeout=5).status_code == 401
            bearer = {"Authorization": f"Bearer {held[0]['token']}"}
            assert requests.post(call, json={}, headers=bearer, timeout=5).status_code == 400
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)


def test_readmes_show_what_is_there() -> None:
    for readme in EXAMPLES.glob("*/README.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", readme.read_text()):
            assert (readme.parent / target).exists(), target
