"""Test the extension for Flask against a local cloud."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from flask import Flask, abort, jsonify, render_template_string, request

from metered_sync import SignallingClient
from metered_sync.contrib import flask as extension
from metered_sync.contrib.flask import Metered
from metered_sync.local import LocalCloud
from tests.conftest import run_script, wait_until
from tests.gate.test_gate import offer
from tests.support.event_source import event_source
from tests.support.wsgi import served


def decide() -> dict[str, Any] | None:
    """Give those a token who say who they are; ``nobody`` is refused."""
    name = request.args.get("name")
    if name is None:
        abort(401)
    if name == "stranger":
        abort(403)
    return None if name == "nobody" else {"peer_id": name, "channels": ["rooms/*"], "ttl": 60}


def make_app(cloud: LocalCloud, **config: Any) -> Flask:
    app = Flask("test")
    app.config.update(
        METERED_KEY_ID=cloud.key_id,
        METERED_KEY_SECRET=cloud.key_secret,
        METERED_URL=cloud.url,
        METERED_TOKEN=decide,
        **config,
    )
    return app


@pytest.fixture
def app(shared_cloud: LocalCloud) -> Iterator[Flask]:
    app = make_app(shared_cloud)
    Metered(app)
    yield app
    close(app)


def close(app: Flask) -> None:
    """Close what the application has opened."""
    resources = app.extensions["metered"]
    for clients in (resources._client, resources._listener):
        for held in clients._held.values():
            if held.client is not None:
                held.client.close()


def test_client_and_control(app: Flask, shared_cloud: LocalCloud) -> None:
    with (
        SignallingClient(**shared_cloud.client_options()) as other,
        other.subscribe("rooms/lobby") as inbox,
        app.app_context(),
    ):
        extension.client().publish("rooms/lobby", {"text": "hello"})
        message = inbox.get(timeout=20)
        assert message.data == {"text": "hello"}
        assert message.sender_peer_id == extension.client().peer_id
        assert extension.client() is Metered(app).client()
        assert list(extension.control().peers("rooms/lobby")) == [other.peer_id]
        assert extension.control() is extension.control()


def test_it_needs_an_application(shared_cloud: LocalCloud) -> None:
    with pytest.raises(RuntimeError, match=r"app\.app_context"):
        extension.client()
    metered = Metered()
    with pytest.raises(RuntimeError, match="Metered"):
        metered.control()
    app = make_app(shared_cloud)
    metered.init_app(app)
    with app.app_context():
        assert metered.control().peers("rooms/nobody") == {}


def test_two_applications_have_their_own(shared_cloud: LocalCloud) -> None:
    apps = [make_app(shared_cloud), make_app(shared_cloud)]
    metered = Metered()
    clients = set()
    for app in apps:
        metered.init_app(app)
        with app.app_context():
            clients.add(metered.client())
    assert len(clients) == 2
    for app in apps:
        close(app)


def test_the_token_view(app: Flask, shared_cloud: LocalCloud) -> None:
    app.add_url_rule("/token", view_func=extension.token_view, methods=["GET", "POST"])
    browser = app.test_client()
    answer = browser.post("/token?name=ann")
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert 0 < answer.json["expires_at"] - time.time() <= 60
    with SignallingClient(token_provider=answer.json["token"], url=shared_cloud.url) as ann:
        assert ann.peer_id == "ann"
    assert browser.get("/token?name=ann").status_code == 200
    assert [
        browser.post(f"/token{query}").status_code
        for query in ("?name=nobody", "?name=stranger", "")
    ] == [403, 403, 401]
    assert browser.put("/token?name=ann").status_code == 405


def test_a_token_function_that_is_wrong(shared_cloud: LocalCloud) -> None:
    app = make_app(shared_cloud)
    app.testing = True
    app.config["METERED_TOKEN"] = lambda: {"peer_id": ""}
    app.add_url_rule("/token", view_func=Metered(app).token_view)
    with pytest.raises(ValueError, match="Metered: the function of METERED_TOKEN"):
        app.test_client().get("/token")
    del app.config["METERED_TOKEN"]
    with pytest.raises(ValueError, match="Metered: METERED_TOKEN must name the function"):
        app.test_client().get("/token")


def test_templates(app: Flask, shared_cloud: LocalCloud) -> None:
    app.config["METERED_KEY"] = shared_cloud.publishable_key
    page = "<script>const config = {{ metered_config() }};</script>|{{ metered_token() }}"

    def rendered(name: str) -> tuple[dict[str, Any], str]:
        with app.test_request_context(f"/?name={name}"):
            script, token = render_template_string(page).split("|")
            text = script.removeprefix("<script>const config = ").removesuffix(";</script>")
            return json.loads(text), token

    config, token = rendered("ann")
    assert (config["url"], config["key"]) == (shared_cloud.url, shared_cloud.publishable_key)
    for each in (config["token"], token):
        with SignallingClient(token_provider=each, url=config["url"]) as ann:
            assert ann.peer_id == "ann"
    for name in ("nobody", "stranger"):  # abort() refuses the token, not the page
        config, token = rendered(name)
        assert (config["token"], config["expires_at"], token) == (None, None, "")
    del app.config["METERED_TOKEN"]
    with app.test_request_context("/"):
        assert json.loads(extension.metered_config())["token"] is None
    assert shared_cloud.key_secret not in str(config)


def test_the_events_view(app: Flask, shared_cloud: LocalCloud) -> None:
    app.add_url_rule("/events", view_func=extension.events_view("rooms/lobby", heartbeat=0.1))

    @app.post("/speak")
    def speak() -> Any:
        extension.client().publish("rooms/lobby", request.get_json())
        return jsonify(done=True)

    control = shared_cloud.control_plane()
    with SignallingClient(**shared_cloud.client_options()) as other, served(app) as url:
        assert (
            requests.head(f"{url}/events", timeout=30).status_code == 200
        )  # which subscribes to nothing
        assert requests.post(f"{url}/events", timeout=30).status_code == 405
        with event_source(f"{url}/events") as one, event_source(f"{url}/events") as two:
            other.publish("rooms/lobby", {"text": "a\ndata: b"})
            # What the application itself publishes reaches its pages, too.
            assert requests.post(f"{url}/speak", json="mine", timeout=30).status_code == 200
            for reader in (one, two):
                assert reader.read() == {"text": "a\ndata: b"}
                assert reader.read() == "mine"
                reader.wait_for_comment()
        # Both pages have gone, and nothing more is published: heartbeats tell.
        wait_until(lambda: control.peers("rooms/lobby") == {}, 30)
    control.close()


def test_events_while_the_service_is_down(shared_cloud: LocalCloud) -> None:
    """The page is told to come again, for another status it would give up."""
    app = make_app(shared_cloud)
    app.config["METERED_URL"] = "ws://127.0.0.1:9"
    app.add_url_rule("/events", view_func=Metered(app).events_view("rooms/lobby"))
    answer = app.test_client().get("/events")
    assert (answer.status_code, answer.data) == (200, b"retry: 5000\n\n")


@pytest.mark.parametrize("arguments", [("",), ("a", 0), ("a", -1), ("a", "x"), ("x" * 300,)])
def test_events_of_what_is_no_channel(arguments: Any) -> None:
    channel, *heartbeat = arguments
    with pytest.raises(ValueError):
        extension.events_view(channel, **dict(zip(["heartbeat"], heartbeat, strict=False)))


def test_the_gate_takes_the_settings(shared_cloud: LocalCloud) -> None:
    sfu = shared_cloud.sfu_options()
    app = make_app(
        shared_cloud,
        METERED_SFU_APP_ID=sfu["app_id"],
        METERED_SFU_SECRET=sfu["secret"],
        METERED_SFU_URL=sfu["url"],
    )
    metered = Metered(app)
    app.register_blueprint(metered.sfu_gate(), url_prefix="/sfu")
    # (As before there was an extension: without one, and with options.)
    app.register_blueprint(
        extension.sfu_gate(origins=["https://app.example"], name="other"), url_prefix="/other"
    )
    app.add_url_rule("/token", view_func=metered.token_view)
    browser = app.test_client()
    token = browser.get("/token?name=ann").json["token"]
    bearer = {"Authorization": f"Bearer {token}"}
    for path in ("/sfu", "/other"):
        body = {"sessionDescription": offer()}
        assert browser.post(f"{path}/session/new", json=body).status_code == 401
        assert browser.post(f"{path}/session/new", json=body, headers=bearer).status_code == 200
    origin = {"Origin": "https://app.example"}
    assert browser.options("/sfu/session/new", headers=origin).status_code == 403
    assert browser.options("/other/session/new", headers=origin).status_code == 204


def test_what_is_wrong_is_logged_at_once(caplog: pytest.LogCaptureFixture) -> None:
    app = Flask("test")
    app.config.update(METERED_KEYID="x", METERED_SYNC_LOOP="asyncio", METERED_TURN_APP="x")
    app.config.update(METERED_KEY_ID="sk_secret_x", METERED_KEY_SECRET="sk_id_x")
    app.config.update(METERED_TOKEN="this_application.is_being.imported")
    with caplog.at_level(logging.WARNING):
        Metered(app)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "no setting METERED_KEYID: did you mean METERED_KEY_ID?" in told[0]
    assert "METERED_KEY_ID (sk_id_…) and METERED_KEY_SECRET (sk_secret_…) are swapped" in told[1]


def test_the_command(app: Flask, shared_cloud: LocalCloud) -> None:
    run = app.test_cli_runner().invoke
    with (
        SignallingClient(**shared_cloud.client_options()) as other,
        other.subscribe("rooms/cli") as inbox,
    ):
        done = run(args=["metered", "publish", "rooms/cli", '{"n": 1}', "--json"])
        assert (done.exit_code, json.loads(done.stdout)) == (0, {"published": 1})
        message = inbox.get(timeout=20)
        assert message.data == {"n": 1}
        assert message.sender_peer_id.startswith("command-")
    for arguments, status, words in (
        (["listen", "rooms/cli", "-W", "0.1"], 124, "listening to rooms/cli"),
        (["listen"], 2, "Usage: flask metered listen"),
        (["kick", "ann"], 2, "No such command 'kick'"),
        (["--help"], 0, "Usage: flask metered"),
        (["doctor", "--only", "keys", "--json"], 0, '"ok"'),
    ):
        done = run(args=["metered", *arguments])
        assert done.exit_code == status, done.output
        assert words in done.output
        assert shared_cloud.key_secret not in done.output


def test_serve(app: Flask) -> None:
    done = app.test_cli_runner().invoke(
        args=["metered", "serve", "--json", "--exit-with-stdin"], input=""
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["key_id"] != app.config["METERED_KEY_ID"]


def test_without_flask() -> None:
    done = run_script(
        "import sys\n"
        "sys.modules['flask'] = None\n"
        "try:\n"
        "    import metered_sync.contrib.flask\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    assert "pip install 'metered_sync[flask]'" in done.stdout
