"""Test the application for Django against a local cloud, in this process."""

from __future__ import annotations

import io
import json
import logging
import re
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest
import requests

from metered_sync import SignallingClient, Subscription
from metered_sync.contrib.resources import Resources
from metered_sync.contrib.settings import VARIABLES
from metered_sync.local import LocalCloud
from tests.conftest import run_script, wait_until
from tests.support.django_project import MIDDLEWARE, addresses, set_up
from tests.support.event_source import event_source
from tests.support.wsgi import served


def decide(user: Any) -> dict[str, Any] | None:
    """Give users a token, but neither ``nobody`` nor ``stranger``."""
    from django.core.exceptions import PermissionDenied

    if user.username == "stranger":
        raise PermissionDenied
    return None if user.username == "nobody" else {"peer_id": user.username, "ttl": 60}


@pytest.fixture
def project(shared_cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Django's settings, with those of this library."""
    for variable in VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    set_up()
    from django.test import override_settings

    from metered_sync.contrib.django.connections import resources

    given = {
        "KEY_ID": shared_cloud.key_id,
        "KEY_SECRET": shared_cloud.key_secret,
        "URL": shared_cloud.url,
        "TOKEN": f"{__name__}.decide",
    }
    with override_settings(METERED=given):
        yield given
    close(resources)


def close(resources: Resources) -> None:
    """Close what the project has opened."""
    for clients in (resources._client, resources._listener):
        for held in clients._held.values():
            if held.client is not None:
                held.client.close()


@pytest.fixture
def inbox(shared_cloud: LocalCloud) -> Iterator[Subscription]:
    with SignallingClient(**shared_cloud.client_options()) as other:
        yield other.subscribe("django")


@pytest.fixture
def database() -> Iterator[None]:
    """Give back the connection to the database in memory."""
    from django.db import connection

    yield
    if connection.connection is not None:
        connection.connection.close()
        connection.connection = None


def as_user(name: str) -> Any:
    from django.contrib.auth.models import User

    return User(username=name)


def test_client_and_control(project: Any, inbox: Subscription) -> None:
    from metered_sync.contrib.django import client, control

    client().publish("django", 7)
    message = inbox.get(timeout=20)
    assert (message.data, message.sender_peer_id) == (7, client().peer_id)
    assert message.sender_peer_id.startswith("web-")
    assert control().peers("django") == {inbox._client.peer_id: None}


# --- publish_on_commit ---


def test_publish_on_commit(project: Any, database: None, inbox: Subscription) -> None:
    from django.db import transaction

    from metered_sync.contrib.django import publish_on_commit

    with transaction.atomic():
        data = {"text": "first"}
        publish_on_commit("django", data)
        data["text"] = "changed before the commit"
        publish_on_commit("django", "second")
        inbox._client.publish("elsewhere", None)  # a round trip: nothing has come
        assert len(inbox) == 0
    assert [inbox.get(timeout=20).data for _ in range(2)] == [{"text": "first"}, "second"]
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        publish_on_commit("django", "rolled back")
        raise ZeroDivisionError
    publish_on_commit("django", "without a transaction")
    assert inbox.get(timeout=20).data == "without a transaction"


@pytest.mark.parametrize(
    ("channel", "data", "error"),
    [
        ("django", float("nan"), ValueError),
        ("django", {1, 2}, TypeError),
        ("", 1, ValueError),
        ("rooms/*", 1, ValueError),
        ("x" * 300, 1, ValueError),
        (7, 1, (TypeError, ValueError)),
    ],
)
def test_what_cannot_be_published_is_refused_before_the_commit(
    project: Any, database: None, channel: Any, data: Any, error: Any
) -> None:
    from metered_sync.contrib.django import publish_on_commit

    with pytest.raises(error):
        publish_on_commit(channel, data)


def test_a_failure_is_logged_and_breaks_nothing_after_the_commit(
    project: Any, database: None, shared_cloud: LocalCloud, caplog: pytest.LogCaptureFixture
) -> None:
    from django.db import transaction
    from django.test import override_settings

    from metered_sync.contrib.django import publish_on_commit

    failing: list[tuple[dict[str, Any], str]] = [
        ({**project, "URL": "ws://127.0.0.1:9"}, "cannot reach|refused|connect"),
        ({**project, "KEY_SECRET": "sk_secret_of_another_key_that_is_long"}, "401|token"),
        ({}, "must be set"),
        ({"KEY_ID": "sk_secret_x", "KEY_SECRET": "sk_id_x"}, "swapped"),
    ]
    for settings, words in failing:
        caplog.clear()
        done = []
        with override_settings(METERED=settings), transaction.atomic():
            publish_on_commit("django", 1)
            transaction.on_commit(lambda done=done: done.append(1))
        assert done == [1]
        (told,) = [record for record in caplog.records if record.name == "metered_sync"]
        assert told.levelno == logging.ERROR
        assert "nothing was published to 'django'" in told.getMessage()
        assert re.search(words, told.getMessage()), told.getMessage()
    caplog.clear()
    publish_on_commit("django", "x" * 70_000)  # more than the service takes
    assert "nothing was published" in caplog.text


def test_a_refusal_is_logged(
    project: Any, database: None, shared_cloud: LocalCloud, caplog: pytest.LogCaptureFixture
) -> None:
    from django.test import override_settings

    from metered_sync.contrib.django import publish_on_commit

    with LocalCloud(permissions=["subscribe"]) as cloud:
        options = {"KEY": cloud.publishable_key, "URL": cloud.url}
        with override_settings(METERED=options):
            publish_on_commit("django", 1)
            wait_until(lambda: "nothing was published" in caplog.text, 30)
            assert "action_not_permitted" in caplog.text
        from metered_sync.contrib.django.connections import resources

        close(resources)


def test_a_service_that_does_not_acknowledge_holds_up_no_request(
    project: Any, database: None, cloud: LocalCloud
) -> None:
    from django.test import override_settings

    from metered_sync.contrib.django import client, publish_on_commit

    with override_settings(METERED={"KEY": cloud.publishable_key, "URL": cloud.url}):
        with (
            SignallingClient(**cloud.client_options()) as other,
            other.subscribe("django") as inbox,
        ):
            client()
            cloud.faults.hold_acks(40)
            begin = time.monotonic()
            publish_on_commit("django", "not acknowledged yet")
            assert time.monotonic() - begin < 20
            assert inbox.get(timeout=20).data == "not acknowledged yet"
            cloud.faults.hold_acks(0)
        client().close()


# --- views ---


def test_the_token_view(project: Any, shared_cloud: LocalCloud) -> None:
    from django.contrib.auth.models import AnonymousUser
    from django.test import RequestFactory, override_settings

    from metered_sync.contrib.django import token_view

    def ask(user: Any, method: str = "post") -> Any:
        request = getattr(RequestFactory(), method)("/token/")
        request.user = user
        return token_view(request)

    answer = ask(as_user("ann"))
    assert answer.status_code == 200
    assert "no-store" in answer.headers["Cache-Control"]
    minted = json.loads(answer.content)
    assert 0 < minted["expires_at"] - time.time() <= 60
    with SignallingClient(token_provider=minted["token"], url=shared_cloud.url) as ann:
        assert ann.peer_id == "ann"
    assert ask(as_user("ann"), "get").status_code == 200
    assert ask(as_user("nobody")).status_code == 403
    assert ask(as_user("stranger")).status_code == 403
    assert ask(as_user("ann"), "put").status_code == 405
    with override_settings(ROOT_URLCONF=addresses()):
        anonymous = ask(AnonymousUser())
    assert (anonymous.status_code, anonymous.headers["Location"]) == (302, "/login/?next=/token/")


def test_a_token_view_without_a_function(project: Any) -> None:
    from django.core.exceptions import ImproperlyConfigured
    from django.test import RequestFactory, override_settings

    from metered_sync.contrib.django import token_view

    request = RequestFactory().get("/token/")
    request.user = as_user("ann")
    for token, words in ((None, "must name the function"), ("no.such", "cannot be imported")):
        with (
            override_settings(METERED={**project, "TOKEN": token}),
            pytest.raises(ImproperlyConfigured, match=words),
        ):
            token_view(request)


def test_the_events_view(project: Any, shared_cloud: LocalCloud) -> None:
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.test import override_settings
    from django.urls import path

    from metered_sync.contrib.django import client, events_view

    def speak(request: Any) -> Any:
        client().publish("django/events", "mine")
        return HttpResponse("done")

    patterns = path("events/", events_view("django/events", heartbeat=0.1)), path("speak/", speak)
    control = shared_cloud.control_plane()
    with (
        override_settings(ROOT_URLCONF=addresses(*patterns), MIDDLEWARE=MIDDLEWARE),
        SignallingClient(**shared_cloud.client_options()) as other,
        served(get_wsgi_application()) as url,
    ):
        for method in ("HEAD", "POST", "PUT"):
            assert requests.request(method, f"{url}/events/", timeout=30).status_code in (403, 405)
        with event_source(f"{url}/events/") as one, event_source(f"{url}/events/") as two:
            assert len(control.peers("django/events")) == 1  # a connection for all pages
            other.publish("django/events", {"text": "a\r\ndata: b"})
            # What the project itself publishes reaches its pages, too.
            assert requests.get(f"{url}/speak/", timeout=30).text == "done"
            for reader in (one, two):
                assert reader.read() == {"text": "a\r\ndata: b"}
                assert reader.read() == "mine"
                reader.wait_for_comment()
        # Both pages have gone, and nothing more is published: heartbeats tell.
        wait_until(lambda: control.peers("django/events") == {}, 30)
    control.close()


def test_events_that_cannot_be(project: Any, shared_cloud: LocalCloud) -> None:
    from django.core.exceptions import ImproperlyConfigured
    from django.test import AsyncRequestFactory, RequestFactory, override_settings

    from metered_sync import ServerRequestError
    from metered_sync.contrib.django import events_view

    for channel in ("", "x" * 300, 7):
        with pytest.raises((TypeError, ValueError)):
            events_view(channel)  # type: ignore[arg-type]
    view = events_view("django/events")
    with pytest.raises(ImproperlyConfigured, match="WSGI"):
        view(AsyncRequestFactory().get("/events/"))
    with override_settings(METERED={**project, "URL": "ws://127.0.0.1:9"}):
        answer = view(RequestFactory().get("/events/"))
        assert (answer.status_code, b"".join(answer)) == (200, b"retry: 5000\n\n")
    with LocalCloud(permissions=["publish"]) as cloud:
        given = {"KEY": cloud.publishable_key, "URL": cloud.url}
        with override_settings(METERED=given), pytest.raises(ServerRequestError):
            view(RequestFactory().get("/events/"))


# --- tags, command, checks ---


def test_tags(project: Any, shared_cloud: LocalCloud) -> None:
    from django.contrib.auth.models import AnonymousUser
    from django.core.exceptions import ImproperlyConfigured
    from django.template import Context, Template
    from django.test import RequestFactory, override_settings

    page = Template(
        "{% load metered %}<script>const config = {% metered_config %};</script>|"
        "{% metered_token %}"
    )

    def rendered(user: Any) -> tuple[dict[str, Any], str]:
        request = RequestFactory().get("/")
        request.user = user
        # A page about somebody else may call that one "user".
        script, token = page.render(Context({"request": request, "user": as_user("boss")})).split(
            "|"
        )
        text = script.removeprefix("<script>const config = ").removesuffix(";</script>")
        return json.loads(text), token

    with override_settings(METERED={**project, "KEY": shared_cloud.publishable_key}):
        config, token = rendered(as_user("ann"))
        assert (config["url"], config["key"]) == (shared_cloud.url, shared_cloud.publishable_key)
        for each in (config["token"], token):
            with SignallingClient(token_provider=each, url=config["url"]) as ann:
                assert ann.peer_id == "ann"
        for user in (AnonymousUser(), as_user("nobody"), as_user("stranger")):
            config, token = rendered(user)
            assert (config["token"], config["expires_at"], token) == (None, None, "")
        assert shared_cloud.key_secret not in str(config)
    with override_settings(METERED={**project, "TOKEN": None}):
        request = RequestFactory().get("/")
        request.user = as_user("ann")
        config_alone = Template("{% load metered %}{% metered_config %}")
        assert json.loads(config_alone.render(Context({"request": request})))["token"] is None
    with pytest.raises(ImproperlyConfigured, match=r"context_processors\.request"):
        page.render(Context({"user": as_user("ann")}))


def test_a_config_that_would_end_the_script(project: Any) -> None:
    from django.template import Context, Template
    from django.test import RequestFactory, override_settings

    request = RequestFactory().get("/")
    request.user = as_user("ann")
    given = {**project, "KEY": "pk_live_</script><!--&"}
    with override_settings(METERED=given):
        shown = Template("{% load metered %}{% metered_config %}").render(
            Context({"request": request})
        )
    assert not set("<>&'").intersection(shown)
    assert json.loads(shown)["key"] == given["KEY"]


def manage(*arguments: str) -> tuple[int, str, str]:
    """Run ``manage.py metered`` in this process; return its status, and what it prints."""
    from django.core.management import ManagementUtility

    out, err = io.StringIO(), io.StringIO()
    status = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            ManagementUtility(["manage.py", "metered", *arguments]).execute()
        except SystemExit as ended:
            status = int(ended.code or 0)
    return status, out.getvalue(), err.getvalue()


def test_the_command(project: Any, shared_cloud: LocalCloud, inbox: Subscription) -> None:
    status, out, _ = manage("publish", "django", '{"n": 1}', "--json")
    assert (status, json.loads(out)) == (0, {"published": 1})
    message = inbox.get(timeout=20)
    assert message.data == {"n": 1}
    assert message.sender_peer_id.startswith("command-")
    for arguments, expected, words in (
        (("listen", "--json", "django", "-W", "0.1"), 124, "listening to django"),
        (("listen",), 2, "Usage: manage.py metered listen"),
        (("kick", "ann"), 2, "No such command 'kick'"),
        (("doctor", "--help"), 0, "Usage: manage.py metered doctor"),
        (("doctor", "--only", "keys", "--json"), 0, '"ok"'),
    ):
        status, out, err = manage(*arguments)
        assert (status, words in out + err) == (expected, True), out + err
        assert shared_cloud.key_secret not in out + err


def test_serve(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    status, out, _ = manage("serve", "--json", "--exit-with-stdin")
    served = json.loads(out)
    assert status == 0
    # (A service of its own: its keys are not the project's.)
    assert served["key_id"] != project["KEY_ID"]


def test_call_command(project: Any, inbox: Subscription) -> None:
    from django.core.management import call_command

    call_command("metered", "publish", "django", "2")
    assert inbox.get(timeout=20).data == 2


def test_checks(project: Any) -> None:
    from django.conf import settings
    from django.core.checks import Error, Warning, run_checks
    from django.test import override_settings

    secret = project["KEY_SECRET"]
    swapped = {"KEY_ID": secret, "KEY_SECRET": project["KEY_ID"]}
    cases: list[tuple[Any, list[tuple[type, str]]]] = [
        (project, []),
        ({}, [(Warning, "metered.W001")]),
        (["KEY_ID"], [(Error, "metered.E001")]),
        ({**project, "KEYSECRET": secret}, [(Error, "metered.E002")]),
        ({**project, "SFU_URL": 7}, [(Error, "metered.E003")]),
        ({"KEY_SECRET": secret}, [(Error, "metered.E004")]),
        (swapped, [(Error, "metered.E005")]),
        ({**project, "KEY": secret}, [(Error, "metered.E005")]),
        ({**project, "URL": "ws://rms.example"}, [(Error, "metered.E006")]),
        ({"TOKEN": project["TOKEN"], "KEY": "pk_live_x"}, [(Error, "metered.E007")]),
        ({**project, "TOKEN": f"{__name__}.nothing"}, [(Error, "metered.E008")]),
    ]
    for given, expected in cases:
        with override_settings(METERED=given):
            found = run_checks(tags=["metered"])
        assert [(type(each), each.id) for each in found] == expected, given
        assert secret not in "".join(map(str, found))
    with override_settings(METERED_KEY_SECRET=secret):  # in a wrong place
        (one,) = run_checks(tags=["metered"])
    assert (one.id, one.hint) == ("metered.W002", 'METERED = {"KEY_SECRET": …}')
    with override_settings():
        del settings.METERED
        assert [each.id for each in run_checks(tags=["metered"])] == ["metered.W001"]


def test_without_django() -> None:
    done = run_script(
        "import sys\n"
        "sys.modules['django'] = None\n"
        "try:\n"
        "    import metered_sync.contrib.django\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    assert "pip install 'metered_sync[django]'" in done.stdout


def test_importing_it_needs_no_settings_and_starts_nothing() -> None:
    done = run_script(
        "import threading\n"
        "import metered_sync.contrib.django, metered_sync.contrib.django.checks\n"
        "import metered_sync.contrib.django.templatetags.metered\n"
        "print(threading.active_count())\n"
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
