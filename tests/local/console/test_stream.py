"""Test what the console tells an open page: state, log, reasons, within bounds; and what it does
for one."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from metered_sync import (
    ControlPlane,
    ControlPlaneError,
    MeteredError,
    SfuApi,
    SfuAuthError,
    SfuClient,
    SignallingClient,
    SignallingConnectError,
    mint_token,
)
from metered_sync.events import Disconnected
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource
from tests.conftest import wait_until
from tests.support.console_page import ConsolePage
from tests.support.raw_client import raw


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(console=True, limits=False) as cloud:
        yield cloud


@pytest.fixture
def fresh() -> Iterator[LocalCloud]:
    with LocalCloud(console=True, limits=False) as cloud:
        yield cloud


@pytest.fixture
def page(cloud: LocalCloud) -> Iterator[ConsolePage]:
    with ConsolePage(cloud) as page:
        assert page.patch()["first"]
        yield page


def member(cloud: LocalCloud, name: str, **claims: Any) -> SignallingClient:
    return SignallingClient(**cloud.token_options(name, **claims), reconnect=False)


def by_id(page: ConsolePage, section: str, key: str, value: str) -> Any:
    return next((one for one in page.state[section] if one[key] == value), None)


# --- what there is ---


def test_peers_and_channels_come_and_go(cloud: LocalCloud, page: ConsolePage) -> None:
    with member(cloud, "ada", channels=["news-*"], peer_metadata={"name": "Ada"}) as ada:
        ada.subscribe("news-1")
        ada.subscribe("news-*")
        page.wait_for(
            lambda: len((by_id(page, "peers", "id", "ada") or {}).get("channels", ())) == 2
        )
        peer = by_id(page, "peers", "id", "ada")
        assert peer["channels"] == ["news-*", "news-1"]
        assert peer["patterns"] == [["**"], ["news-*"]]
        assert peer["actions"] == ["presence", "publish", "send", "subscribe"]
        assert json.loads(peer["peerMetadata"]) == {"name": "Ada"}
        assert peer["expires"] > time.time()
        channel = page.wait_for(lambda: by_id(page, "channels", "name", "news-1"))
        assert channel == {"name": "news-1", "pattern": False, "count": 1, "peers": ["ada"]}
        assert by_id(page, "channels", "name", "news-*")["pattern"]
    page.wait_for(lambda: by_id(page, "peers", "id", "ada") is None)
    page.wait_for(lambda: by_id(page, "channels", "name", "news-1") is None)


def test_keys_are_masked_and_handed_out_on_request(cloud: LocalCloud, page: ConsolePage) -> None:
    shown = json.dumps(page.state)
    names = ("publishable_key", "key_secret", "sfu_secret", "turn_secret_key", "turn_api_key")
    for name in names:
        value = getattr(cloud, name)
        assert value not in shown
        assert page.state["keys"][name].endswith(f"…{value[-4:]}")
    told = page.get("keys").json()
    assert {name: told[name] for name in names} == {name: getattr(cloud, name) for name in names}
    assert (told["url"], told["http_url"]) == (cloud.url, cloud.http_url)


def test_members_of_a_room_are_found_by_their_signals(cloud: LocalCloud, page: ConsolePage) -> None:
    with member(cloud, "bea") as bea, member(cloud, "cid") as cid, member(cloud, "dee") as dee:
        for client in (bea, cid, dee):
            client.subscribe("studio")
            client.subscribe("elsewhere")
        offer = {"type": "rtc-description", "description": {"type": "offer", "sdp": "v=0"}}
        bea.send("cid", {"__meteredTrackMeta": {"trackId": "t", "kind": "video", "metadata": {}}})
        bea.send("cid", offer)
        audio, video = "m=audio 9 X 96\r\n", "m=video 9 X 96\r\n"
        sdp = f"v=0\r\n{video}a=inactive\r\nm=video 0 X 9\r\n{audio}a=sendonly\r\nm=\r\n{video}"
        dee.send("bea", {**offer, "description": {"type": "answer", "sdp": sdp}})
        state = {"id": "s1", "kind": "audio", "name": "mic", "stream": "x", "on": False, "meta": 7}
        cid.publish("studio", {"$sfu": 1, "boot": "b", "rev": 1, "session": "s", "tracks": [state]})
        for bad in ({"$sfu": 1, "session": 1, "tracks": [7]}, {"$sfu": [], "session": {}}):
            cid.publish("studio", bad)
        room = page.wait_for(
            lambda: (
                (found := by_id(page, "rooms", "name", "studio"))
                and found["members"][1]["tracks"]
                and found
            )
        )
        assert room["members"] == [
            {
                "peer": "bea", "media": "mesh", "speaking": False, "links": ["cid"],
                "tracks": [{"kind": "video", "stream": None}],
            },
            {
                "peer": "cid", "media": "sfu", "speaking": False, "links": [],
                "tracks": [{"kind": "audio", "name": "mic", "stream": "x", "on": False}],
            },
            {
                "peer": "dee", "media": "mesh", "speaking": False, "links": ["bea"],
                "tracks": [{"kind": "audio"}, {"kind": "video"}],
            },
        ]  # fmt: skip


# --- what went over the wire ---


def test_frames_and_calls_are_rows(cloud: LocalCloud, page: ConsolePage) -> None:
    with member(cloud, "dan") as dan:
        dan.publish("news", {"text": "<script>alert(1)</script>"})
    sent = page.wait_for(lambda: next((r for r in page.rows if "<script>" in r["text"]), None))
    assert (sent["kind"], sent["peer"]) == ("sent", "dan")
    assert json.loads(sent["text"])["data"] == {"text": "<script>alert(1)</script>"}
    assert sent["size"] == len(sent["text"])
    end = page.row(kind="end", peer="dan")
    assert end["status"] == 1000
    assert "error" not in end
    with cloud.control_plane() as plane:
        token = plane.mint_token(peer_id="eve").token
    row = page.row(kind="call", peer="POST /v1/tokens")
    assert row["status"] == 200
    assert json.loads(row["text"])["peerId"] == "eve"
    assert token not in row["answer"]
    assert json.loads(row["answer"])["token"] == "…"


def test_a_filter_and_refusals_alone(cloud: LocalCloud) -> None:
    with (
        ConsolePage(cloud, words="NEEDLE") as some,
        ConsolePage(cloud, refused="1") as refused,
        member(cloud, "flo", permissions=["publish", "subscribe"]) as flo,
    ):
        flo.publish("hay", "needle in it")
        flo.publish("hay", "straw")
        with pytest.raises(MeteredError):
            flo.send("flo", "straw")
        flo.publish("needle", "straw")
        some.wait_for(lambda: any('"needle"' in row["text"] for row in some.rows))
        refused.wait_for(lambda: any("'flo' lacks" in row.get("why", "") for row in refused.rows))
        assert all("needle" in json.dumps(row).lower() for row in some.rows)
        assert all("error" in row for row in refused.rows)


def test_lone_surrogates_and_numbers_without_end_break_nothing(cloud: LocalCloud) -> None:
    with ConsolePage(cloud) as page, raw(cloud, "gus") as gus:
        texts = ('{"type":"publish","channel":"x","data":"\\ud800"}', '{"type":"ping"}', "[" * 5000)
        for text in texts:
            gus.connection.send(text)
        for text in texts:
            page.row(kind="sent", text=text)
        assert page.row(kind="sent", text=texts[0])["error"] == "malformed_message"


# --- why ---


def refused_row(page: ConsolePage, why: str) -> dict[str, Any]:
    row: dict[str, Any] = page.wait_for(
        lambda: next((row for row in page.rows if why in row.get("why", "")), None)
    )
    assert row["error"]
    return row


def test_the_reason_of_a_refused_frame(cloud: LocalCloud, page: ConsolePage) -> None:
    with member(cloud, "hal", channels=["lobby-*"], permissions=["publish", "subscribe"]) as hal:
        with pytest.raises(MeteredError) as told:
            hal.publish("vault", 1)
        with pytest.raises(MeteredError):
            hal.send("nobody", 1)
    why = "'vault' is not among the channels of 'hal': 'lobby-*'"
    row = refused_row(page, why)
    assert row["error"] == "channel_not_authorized"
    assert json.loads(row["text"])["channel"] == "vault"
    assert why not in str(told.value)  # as from the service
    why = "'hal' lacks the permission 'send'; it may: publish, subscribe"
    assert refused_row(page, why)["error"] == "action_not_permitted"


@pytest.mark.parametrize(
    ("claims", "secret", "why"),
    [
        (
            {"ttl": 3600},
            "sk_secret_of_another_cloud_and_long",
            "the signature or a required claim is wrong",
        ),
        ({"ttl": 3600}, None, "this cloud has 'sk_id_"),
    ],
)
def test_the_reason_why_a_token_is_turned_away(
    cloud: LocalCloud, page: ConsolePage, claims: dict[str, Any], secret: str | None, why: str
) -> None:
    key_id = cloud.key_id if secret else "sk_id_0123456789abcdef"
    token = mint_token(key_id, secret or cloud.key_secret, peer_id="ida", **claims)
    with pytest.raises(SignallingConnectError) as told:
        SignallingClient(token_provider=token, url=cloud.url, reconnect=False).connect()
    assert told.value.close_code == 4001
    row = refused_row(page, why)
    assert (row["kind"], row["status"]) == ("end", 4001)
    assert token not in json.dumps(row)


def test_the_reason_of_a_refused_call(cloud: LocalCloud, page: ConsolePage) -> None:
    with (
        ControlPlane(cloud.key_id, "sk_secret_another", url=cloud.http_url) as plane,
        pytest.raises(ControlPlaneError),
    ):
        plane.usage()
    assert refused_row(page, f"the secret is not that of '{cloud.key_id}'")["status"] == 401
    with (
        SfuApi("app_of_another", cloud.sfu_secret, url=cloud.http_url) as api,
        pytest.raises(SfuAuthError),
    ):
        api.sessions()
    assert refused_row(page, "the path names the app 'app_of_another'")["status"] == 401
    assert cloud.sfu_secret not in json.dumps(page.rows)


def test_what_was_refused_before_a_page_was_open_is_there(fresh: LocalCloud) -> None:
    cloud = fresh
    with member(cloud, "jan", permissions=["publish"]) as jan:
        jan.publish("quiet", "unseen by anybody")
        with pytest.raises(MeteredError):
            jan.subscribe("quiet")
    with ConsolePage(cloud) as page:
        page.patch()
        assert refused_row(page, "'jan' lacks the permission 'subscribe'")
        assert "unseen by anybody" not in json.dumps(page.rows)
        assert page.post("clear").status_code == 200
    with ConsolePage(cloud) as page:
        page.patch()
        assert not [row for row in page.rows if row["peer"] == "jan"]


# --- what a page may have done ---


def test_a_peer_is_kicked(cloud: LocalCloud, page: ConsolePage) -> None:
    with member(cloud, "kim") as kim, kim.events(Disconnected) as events:
        assert page.post("kick", {"peer": "kim"}).json() == {"closed": 1}
        assert events.get(timeout=20).code == 4020
        assert page.post("kick", {"peer": "nobody"}).json() == {"closed": 0}
    for body in (None, 7, {}, {"peer": 7}, {"peer": ""}):
        assert page.post("kick", body).status_code == 400
    assert refused_row(page, "somebody disconnected it")["peer"] == "kim"


def test_faults_are_injected_and_shown(cloud: LocalCloud, page: ConsolePage) -> None:
    with member(cloud, "leo") as leo, leo.events(Disconnected) as events:
        body = {"name": "drop_connections", "arguments": {"peer_id": "leo"}}
        assert page.post("fault", body).status_code == 200
        assert events.get(timeout=20).code == 1006
    for name, arguments in (
        ("delay", {"seconds": 0.01}),
        ("hold_acks", {"seconds": 60}),
        ("refuse_connections", {"seconds": 60}),
        ("lose_media", {"fraction": 0.5}),
    ):
        assert page.post("fault", {"name": name, "arguments": arguments}).status_code == 200
        page.wait_for(lambda name=name: page.state["faults"][name])
        ended = dict.fromkeys(arguments, 0)
        assert page.post("fault", {"name": name, "arguments": ended}).status_code == 200
        page.wait_for(lambda name=name: not page.state["faults"][name])
    assert page.post("fault", {"name": "going_away"}).status_code == 200
    assert page.post("fault", {"name": "close", "arguments": {"code": 4001}}).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"name": "explode"}, 404, "explode"),
        ({"name": "__init__"}, 404, "__init__"),
        ({"name": "delay"}, 400, "seconds"),
        ({"name": "delay", "arguments": {"seconds": -1}}, 400, "seconds"),
        ({"name": "delay", "arguments": {"seconds": "1"}}, 400, "seconds"),
        ({"name": "delay", "arguments": {"hours": 1}}, 400, "hours"),
        ({"name": "delay", "arguments": []}, 400, "arguments"),
        ({"name": "close", "arguments": {"code": 7}}, 400, "code"),
        ({"name": "kill_sfu_session", "arguments": {"session_id": "x"}}, 400, "no SFU session"),
        ({}, 400, "name"),
        (None, 400, "object"),
    ],
)
def test_faults_that_make_no_sense(
    cloud: LocalCloud, page: ConsolePage, body: Any, status: int, word: str
) -> None:
    answer = page.post("fault", body)
    assert answer.status_code == status
    assert word in answer.json()["message"]


def test_the_sfu_is_reached_without_its_secret(cloud: LocalCloud, page: ConsolePage) -> None:
    path = f"api/sfu/{cloud.sfu_app_id}/sessions"
    assert page.get(path).json() == []
    assert "Access-Control-Allow-Origin" not in page.get(path).headers


# --- what it costs ---


def console_of(cloud: LocalCloud) -> tuple[Any, int]:
    """Return the console, and how many tasks the cloud's loop has."""

    async def look(servers: Any) -> tuple[Any, int]:
        return servers.pages, len(asyncio.all_tasks())

    return cloud._do("look", None, look)


def test_without_a_page_there_is_no_work() -> None:
    with LocalCloud(limits=False) as plain:
        tasks = console_of(plain)[1]
    with LocalCloud(limits=False, console=True) as cloud:
        console, with_console = console_of(cloud)
        assert with_console == tasks
        with member(cloud, "mia") as mia:
            mia.subscribe("busy")
            for number in range(20):
                mia.publish("busy", number)
            assert not console._journal.watching
            assert console._journal.last == 0
            with ConsolePage(cloud) as page:
                page.patch()
                assert console._journal.watching
                mia.publish("busy", "seen")
                page.wait_for(lambda: [row for row in page.rows if "seen" in row["text"]])
            wait_until(lambda: not console._journal.watching, what="the page is closed")
            last = console._journal.last
            mia.publish("busy", "unseen")
            assert console._journal.last == last
        wait_until(lambda: console_of(cloud)[1] == tasks, what="no task is left")


def test_tracks_are_measured_while_a_page_is_open(cloud: LocalCloud) -> None:
    console, _ = console_of(cloud)
    with SfuClient(**cloud.sfu_options()) as client:
        client.publish(PatternSource(160, 120, 15), name="cam", codec="vp8")
        with ConsolePage(cloud) as page:
            page.patch()

            def measured() -> Any:
                session = by_id(page, "sessions", "id", client.session_id or "")
                track = session and session["tracks"][0]
                return track and track["bitRate"] and track["size"] and track

            track = page.wait_for(measured)
            assert (track["name"], track["codec"], track["size"]) == ("cam", "VP8", [160, 120])
            assert track["bitRate"] > 1000
            assert 0 <= track["loss"] <= 1
            assert track["subscribers"] == 0
        wait_until(lambda: not console._meters._meters, what="nothing is measured any more")


def test_at_most_ten_patches_a_second_of_bounded_size(cloud: LocalCloud) -> None:
    with member(cloud, "ned") as ned:
        start = time.monotonic()
        with ConsolePage(cloud) as page:
            while time.monotonic() - start < 1.5:
                for _ in range(40):
                    ned.publish_nowait("flood", "x" * 1000)
                ned.publish_nowait("flood", "x" * 60_000)
                ned.flush()
            ned.close()
            page.row(kind="end", peer="ned")
            seconds = time.monotonic() - start
    assert page.skipped
    assert len(page.sizes) <= seconds * 10 + 2
    assert max(page.sizes) < 1 << 20


def test_two_pages_and_too_many(cloud: LocalCloud) -> None:
    pages = [ConsolePage(cloud) for _ in range(2)]
    try:
        with member(cloud, "ora") as ora:
            ora.publish("both", "of them")
            for page in pages:
                page.wait_for(lambda page=page: [r for r in page.rows if "of them" in r["text"]])
        with pytest.raises(AssertionError, match="too_many_pages"):
            for _ in range(17):
                pages.append(ConsolePage(cloud))
    finally:
        for page in pages:
            page.close()


def test_a_cloud_with_an_open_page_closes_and_resets() -> None:
    with LocalCloud(console=True) as cloud, ConsolePage(cloud) as page:
        page.patch()
        with member(cloud, "pat") as pat:
            pat.publish("x", 1)
            page.wait_for(lambda: page.rows)
        cloud.reset()
        start = time.monotonic()
        cloud.close()
        assert time.monotonic() - start < 5
        with pytest.raises(AssertionError, match="ended"):
            while True:
                page.patch()
