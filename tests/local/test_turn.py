"""Test the TURN service's REST calls, as any HTTP client sees them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from metered_sync.local import LocalCloud
from metered_sync.wire.turn import parse_ice_servers
from tests.conftest import wait_until
from tests.support.coturn import SECRET, coturn
from tests.support.raw_client import raw


def get(cloud: LocalCloud, path: str, **query: Any) -> requests.Response:
    return requests.get(f"{cloud.http_url}/api{path}", params=query, timeout=20)


def create(cloud: LocalCloud, **options: Any) -> requests.Response:
    query = {"secretKey": cloud.turn_secret_key}
    url = f"{cloud.http_url}/api/v1/turn/credential"
    return requests.post(url, params=query, timeout=10, **options)


def accepted_by_coturn(username: str, password: str, secret: str) -> bool:
    """What a coturn with ``use-auth-secret`` asks: not expired, and signed with its secret."""
    expiry = int(username.split(":")[0])
    digest = hmac.new(secret.encode(), username.encode(), hashlib.sha1).digest()
    return expiry > time.time() and base64.b64encode(digest).decode() == password


def test_the_list_of_servers(shared_cloud: LocalCloud) -> None:
    answer = get(shared_cloud, "/v1/turn/credentials", apiKey=shared_cloud.turn_api_key)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "*"  # for browsers
    stun, *turn = answer.json()
    assert stun == {"urls": "stun:127.0.0.1:3478"}
    assert [entry["urls"] for entry in turn] == [
        "turn:127.0.0.1:3478",
        "turn:127.0.0.1:3478?transport=tcp",
    ]
    for entry in turn:
        assert set(entry) == {"urls", "username", "credential"}
        assert accepted_by_coturn(entry["username"], entry["credential"], shared_cloud.turn_secret)
    assert parse_ice_servers(answer.json())


@pytest.mark.parametrize(
    ("query", "status", "body"),
    [
        ({}, 400, {"error": "Please specify API Key"}),
        ({"apiKey": ""}, 400, {"error": "Please specify API Key"}),
        ({"apiKey": "wrong"}, 401, {"error": "Invalid API Key"}),
        ({"apiKey": "é\ud800".encode("utf-8", "surrogatepass")}, 401, {"error": "Invalid API Key"}),
    ],
)
def test_wrong_api_keys(
    shared_cloud: LocalCloud, query: dict[str, str], status: int, body: dict[str, str]
) -> None:
    answer = get(shared_cloud, "/v1/turn/credentials", **query)
    assert (answer.status_code, answer.json()) == (status, body)


def test_regions(shared_cloud: LocalCloud) -> None:
    for region, status in (("europe_west", 200), ("standard", 200), ("atlantis", 400)):
        query = {"apiKey": shared_cloud.turn_api_key, "region": region}
        assert get(shared_cloud, "/v1/turn/credentials", **query).status_code == status


def test_a_credential_with_an_expiry_and_a_label(shared_cloud: LocalCloud) -> None:
    answer = create(shared_cloud, json={"expiryInSeconds": 60, "label": "me"})
    made = answer.json()
    assert answer.status_code == 200
    assert set(made) == {"username", "password", "expiryInSeconds", "label", "apiKey"}
    assert (made["expiryInSeconds"], made["label"]) == (60, "me")
    assert accepted_by_coturn(made["username"], made["password"], shared_cloud.turn_secret)
    assert int(made["username"].split(":")[0]) < time.time() + 70
    # Its API key asks for the list with this credential in it.
    listed = get(shared_cloud, "/v1/turn/credentials", apiKey=made["apiKey"]).json()
    assert listed[1]["username"] == made["username"]
    assert listed[1]["credential"] == made["password"]


def test_a_credential_without_anything(shared_cloud: LocalCloud) -> None:
    for options in ({}, {"json": {}}, {"json": {"expiryInSeconds": None}}):
        made = create(shared_cloud, **options).json()
        assert set(made) == {"username", "password", "apiKey"}
        assert accepted_by_coturn(made["username"], made["password"], shared_cloud.turn_secret)


@pytest.mark.parametrize("expiry", [0, -1, 1.5, "60", True, 10**12, []])
def test_expiries_that_are_none(shared_cloud: LocalCloud, expiry: Any) -> None:
    answer = create(shared_cloud, json={"expiryInSeconds": expiry})
    assert answer.status_code == 400
    assert "expiryInSeconds" in answer.json()["message"]


def test_bodies_that_are_none(shared_cloud: LocalCloud) -> None:
    for body in (b"nonsense", b"[]", b'{"label":7}', b'{"label":' + b"[" * 20_000):
        assert create(shared_cloud, data=body).status_code == 400
    assert create(shared_cloud, data=b"x" * 40_000).status_code == 413


def test_an_expired_credential() -> None:
    with LocalCloud() as cloud:
        key = create(cloud, json={"expiryInSeconds": 1}).json()["apiKey"]
        kept = create(cloud, json={}).json()["apiKey"]

        def listed(**query: Any) -> list[tuple[str, bool]]:
            answer = get(cloud, "/v2/turn/credentials", secretKey=cloud.turn_secret_key, **query)
            return [(entry["apiKey"], entry["expired"]) for entry in answer.json()["data"]]

        wait_until(lambda: listed() == [(kept, False)], 20)
        assert listed(all="true") == [(key, True), (kept, False)]
        assert get(cloud, "/v1/turn/credentials", apiKey=key).status_code == 401


def test_pages_of_credentials() -> None:
    with LocalCloud() as cloud:
        made = [
            create(cloud, json={"label": "odd" if number % 2 else "even"}).json()
            for number in range(52)
        ]
        query = {"secretKey": cloud.turn_secret_key}
        first = get(cloud, "/v2/turn/credentials", **query).json()
        assert first["data"] == [{**entry, "expired": False} for entry in made[:50]]
        assert first["pagination"] == {
            "total_records": 52,
            "current_page": 1,
            "total_pages": 2,
            "next_page": 2,
            "prev_page": None,
        }
        second = get(cloud, "/v2/turn/credentials", page=2, **query).json()
        assert [entry["apiKey"] for entry in second["data"]] == [e["apiKey"] for e in made[50:]]
        assert (second["pagination"]["next_page"], second["pagination"]["prev_page"]) == (None, 1)
        beyond = get(cloud, "/v2/turn/credentials", page=3, **query).json()
        assert beyond["data"] == []
        odd = get(cloud, "/v2/turn/credentials", label="odd", **query).json()
        assert odd["pagination"]["total_records"] == 26
        for page in ("0", "-1", "x", "", "1.5", "9" * 5000):
            answer = get(cloud, "/v2/turn/credentials", page=page, **query)
            assert answer.status_code == 400
            assert "page" in answer.json()["message"]


def test_the_secret_key_is_checked(shared_cloud: LocalCloud) -> None:
    for query in ({}, {"secretKey": ""}, {"secretKey": shared_cloud.turn_api_key}):
        assert get(shared_cloud, "/v2/turn/credentials", **query).status_code == 401
        url = f"{shared_cloud.http_url}/api/v1/turn/credential"
        assert requests.post(url, params=query, timeout=10).status_code == 401


def test_the_project_variants() -> None:
    with LocalCloud() as cloud:
        app = cloud.turn_options()["app"]
        url = f"{cloud.http_url}/api/v2/turn/project/{app}/credential"
        for query in (
            {"secretKey": cloud.turn_secret_key},
            {"projectApiKey": cloud.turn_api_key},
        ):
            made = requests.post(url, params=query, json={"label": "p"}, timeout=10).json()
            listed = requests.get(url + "s", params=query, timeout=20).json()
            assert listed["data"][-1] == {**made, "expired": False}
        assert requests.get(url + "s", timeout=20).status_code == 401
        elsewhere = url.replace(app, "elsewhere")
        assert requests.post(elsewhere, params=query, timeout=10).status_code == 404


# --- in the welcome ---


def test_welcomes_carry_no_servers_unless_some_are_configured(shared_cloud: LocalCloud) -> None:
    with raw(shared_cloud) as client:
        assert "metadata" not in client.welcome


def test_configured_servers_go_into_welcomes_and_lists() -> None:
    servers = ["stun:127.0.0.1:1", {"urls": ["turn:127.0.0.1:2", "turns:127.0.0.1:3"]}]
    own = {"urls": "turn:127.0.0.1:4", "username": "u", "credential": "c"}
    with LocalCloud(ice_servers=[*servers, own], turn_secret="known") as cloud:
        assert "known" not in repr(cloud)
        with raw(cloud) as anonymous, raw(cloud, "me", metadata={"x": 1}) as named:
            for client in (anonymous, named):
                stun, turn, mine = client.welcome["metadata"]["iceServers"]
                assert stun == {"urls": "stun:127.0.0.1:1"}
                assert turn["urls"] == ["turn:127.0.0.1:2", "turns:127.0.0.1:3"]
                assert accepted_by_coturn(turn["username"], turn["credential"], "known")
                assert mine == own
            assert named.welcome["metadata"]["x"] == 1
        with raw(cloud, "me", metadata={"iceServers": []}) as chosen:  # the token's own win
            assert chosen.welcome["metadata"] == {"iceServers": []}
        listed = get(cloud, "/v1/turn/credentials", apiKey=cloud.turn_api_key).json()
        assert [entry["urls"] for entry in listed] == [
            "stun:127.0.0.1:1",
            ["turn:127.0.0.1:2", "turns:127.0.0.1:3"],
            "turn:127.0.0.1:4",
        ]
    with LocalCloud(ice_servers=[]) as cloud, raw(cloud) as client:
        assert client.welcome["metadata"] == {"iceServers": []}


@pytest.mark.parametrize(
    "servers", [["http://x"], [{}], [{"urls": "turn:x", "username": 7}], ["stun:x"] * 17, [7]]
)
def test_servers_that_clients_would_drop(servers: Any) -> None:
    with pytest.raises(ValueError, match="ice_servers"):
        LocalCloud(ice_servers=servers)


# --- with a real TURN server ---


def test_a_coturn_accepts_the_credentials(tmp_path: Path) -> None:
    """It is started with the cloud's secret, and lets in whom the cloud has told of it."""
    from aioice import turn

    async def allocate(username: str, password: str) -> None:
        transport, _ = await turn.create_turn_endpoint(
            asyncio.DatagramProtocol,
            server_addr=("127.0.0.1", port),
            username=username,
            password=password,
        )
        assert transport.get_extra_info("sockname")[0] == "127.0.0.1"
        transport.close()

    with (
        coturn(tmp_path) as port,
        LocalCloud(ice_servers=[f"turn:127.0.0.1:{port}"], turn_secret=SECRET) as cloud,
        raw(cloud) as client,
    ):
        (told,) = client.welcome["metadata"]["iceServers"]
        made = create(cloud, json={"expiryInSeconds": 60}).json()
        asyncio.run(allocate(told["username"], told["credential"]))
        asyncio.run(allocate(made["username"], made["password"]))
        with pytest.raises(Exception, match="401"):
            asyncio.run(allocate(made["username"], "wrong"))
