"""Test the gate inside Flask and Django: the same answers as the gate's own, to the same calls."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from metered_sync import SfuGate, mint_token
from metered_sync.gate.wsgi import MAX_READ
from metered_sync.local import LocalCloud
from tests.gate.test_gate import offer
from tests.support.django_project import set_up
from tests.support.gates import gate_of

Ask = Callable[..., tuple[int, dict[str, str], bytes]]


def ask_flask(gate: SfuGate) -> Ask:
    from metered_sync.contrib.flask import sfu_gate

    app = Flask("test")
    app.register_blueprint(sfu_gate(gate), url_prefix="/my/sfu")
    client = app.test_client()

    def ask(method: str, path: str, headers: dict[str, str], body: bytes) -> Any:
        answer = client.open("/my/sfu" + path, method=method, headers=headers, data=body)
        return answer.status_code, dict(answer.headers), answer.data

    return ask


def ask_django(gate: SfuGate) -> Ask:
    set_up()
    from django.test import RequestFactory
    from django.urls import re_path

    from metered_sync.contrib.django import sfu_gate

    pattern = re_path(r"^my/sfu/(?P<path>.*)$", sfu_gate(gate))
    factory = RequestFactory(enforce_csrf_checks=True)

    def ask(method: str, path: str, headers: dict[str, str], body: bytes) -> Any:
        request = factory.generic(
            method, "/my/sfu" + path, body, "application/json", headers=headers
        )
        found = pattern.resolve(request.path_info.lstrip("/"))
        assert found is not None
        assert found.func.csrf_exempt
        answer = found.func(request, *found.args, **found.kwargs)
        return answer.status_code, dict(answer.headers), answer.content

    return ask


@pytest.mark.parametrize("framework", [ask_flask, ask_django])
def test_it_answers_as_the_gate_does(shared_cloud: LocalCloud, framework: Any) -> None:
    gate = gate_of(shared_cloud, origins=["https://app.example"])
    ask = framework(gate)
    token = mint_token(shared_cloud.key_id, shared_cloud.key_secret, peer_id="ann")
    bearer = {"Authorization": f"Bearer {token}"}
    status, headers, body = ask("POST", "/session/new", bearer, _new())
    assert (status, headers["Content-Type"]) == (200, "application/json")
    session = json.loads(body)["sessionId"]
    assert ask("GET", f"/session/{session}/tracks", bearer, b"")[::2] == (200, b"[]")
    other = mint_token(shared_cloud.key_id, shared_cloud.key_secret, peer_id="bob")
    subscribe = json.dumps({"tracks": []}).encode()
    calls: list[tuple[str, str, dict[str, str], bytes, int]] = [
        ("GET", "/sessions", bearer, b"", 403),
        ("GET", "/sessions", {}, b"", 401),
        ("GET", "/", bearer, b"", 404),
        ("GET", "/session/..%2f..%2fsessions", bearer, b"", 404),
        ("DELETE", "/session/new", bearer, b"", 405),
        ("POST", "/session/new", bearer, b"{", 400),
        ("POST", "/session/new", bearer, b" " * (MAX_READ + 10), 413),
        ("OPTIONS", "/session/new", {"Origin": "https://app.example"}, b"", 204),
        ("OPTIONS", "/session/new", {"Origin": "https://evil.example"}, b"", 403),
        (
            "POST",
            f"/session/{session}/track/subscribe",
            {"Authorization": f"Bearer {other}"},
            subscribe,
            403,
        ),
    ]
    for method, path, given, content, expected in calls:
        status, headers, _ = ask(method, path, given, content)
        assert status == expected, (method, path, given)
    assert ask(*calls[7][:4])[1]["Access-Control-Allow-Origin"] == "https://app.example"
    gate.close()


def _new() -> bytes:
    return json.dumps({"sessionDescription": offer()}).encode()


def test_a_gate_or_options_for_one(shared_cloud: LocalCloud) -> None:
    from metered_sync.contrib.django import sfu_gate as for_django
    from metered_sync.contrib.flask import sfu_gate as for_flask

    gate = gate_of(shared_cloud)
    for make in for_flask, for_django:
        with pytest.raises(TypeError, match="not both"):
            make(gate, url="https://x")
    keys = {shared_cloud.key_id: shared_cloud.key_secret}
    assert for_flask(keys=keys, **shared_cloud.sfu_options()).name == "sfu_gate"
    gate.close()


def test_django_takes_the_settings(shared_cloud: LocalCloud, monkeypatch: Any) -> None:
    set_up()
    from django.conf import settings
    from django.test import RequestFactory

    from metered_sync.contrib.django import sfu_gate

    options = shared_cloud.sfu_options()
    given = {
        "KEY_ID": shared_cloud.key_id,
        "KEY_SECRET": shared_cloud.key_secret,
        "SFU_APP_ID": options["app_id"],
        "SFU_SECRET": options["secret"],
        "SFU_URL": options["url"],
    }
    monkeypatch.setattr(settings, "METERED", given, raising=False)
    token = mint_token(shared_cloud.key_id, shared_cloud.key_secret, peer_id="ann")
    request = RequestFactory().post(
        "/sfu/session/new",
        _new(),
        "application/json",
        headers={"Authorization": f"Bearer {token}"},
    )
    assert sfu_gate()(request, "session/new").status_code == 200
