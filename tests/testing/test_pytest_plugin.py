"""Test the pytest plug-in as its users meet it: in projects of their own, in fresh processes."""

from __future__ import annotations

import configparser
import json
import re

import pytest

from tests.conftest import ROOT

pytest_plugins = ["pytester"]

PLUGIN = "metered_sync.testing.pytest_plugin"

FIXTURES = '''
import os

import pytest

from metered_sync import ClosedError, MeteredError, MeteredTimeoutError, SignallingClient, SfuClient
from metered_sync.testing import PatternSource, read_number

addresses, kept = [], []


def test_clients_and_the_log(local_cloud, metered_client):
    addresses.append(local_cloud.url)
    ann = metered_client("ann", peer_metadata={"name": "Ann"}, timeout=20)
    bob = metered_client("bob", channels=["chat"])
    anybody = metered_client()
    inbox = bob.subscribe("chat")
    ann.publish("chat", {"n": 1})
    assert inbox.get(timeout=20).data == {"n": 1}
    assert local_cloud.log.wait_for("publish", peer="ann", channel="chat").data == {"n": 1}
    assert local_cloud.log.wait_for("message", peer="bob", timeout=20).data == {"n": 1}
    with pytest.raises(MeteredError):
        bob.publish("elsewhere", 1)
    assert local_cloud.log.wait_for("error", peer="bob").fields["code"] == "channel_not_authorized"
    assert anybody.peer_id not in ("ann", "bob")
    with pytest.raises(TypeError, match="needs a peer_id"):
        metered_client(ttl=5)
    local_cloud.faults.hold_acks(60)
    local_cloud.faults.refuse_connections(60)
    kept.extend([ann, bob])


def test_the_next_one_finds_it_as_new(local_cloud, metered_client):
    assert [local_cloud.url] == addresses
    assert list(local_cloud.log) == []
    for client in kept:
        with pytest.raises(ClosedError):
            client.publish("chat", 1)
    assert local_cloud.control_plane().usage().messages_used == 0
    assert not local_cloud.control_plane().peers("chat")
    metered_client("ann").publish("chat", 1)


def test_one_may_close_it(local_cloud, metered_client):
    metered_client("ann")
    local_cloud.close()


def test_then_there_is_another(local_cloud, metered_client):
    assert local_cloud.url
    metered_client("ann").publish("chat", 1)


def test_a_fresh_one(fresh_cloud, local_cloud):
    assert fresh_cloud.url != local_cloud.url
    with SignallingClient(**fresh_cloud.token_options("ann")) as client:
        client.publish("chat", 1)
        fresh_cloud.log.wait_for("publish", peer="ann")
    assert list(local_cloud.log) == []


def test_the_environment(metered_env, local_cloud):
    assert "METERED_TURN_SECRET_KEY" not in os.environ
    assert os.environ["METERED_SYNC_LOOP"] == "asyncio"
    assert metered_env == {name: os.environ[name] for name in metered_env}
    with SignallingClient() as client, SfuClient() as sfu:
        client.publish("chat", 1)
        assert sfu.session_id
    local_cloud.log.wait_for("publish")


def test_it_is_gone_afterwards():
    assert os.environ["METERED_KEY"] == "a real one"
    assert os.environ["METERED_TURN_SECRET_KEY"] == "a real one, too"
    assert "METERED_URL" not in os.environ


def test_rooms_and_media(local_cloud, metered_peer, sfu_client):
    ann, bob = metered_peer("ann"), metered_peer("bob", timeout=20)
    assert (ann.state, bob.state) == ("idle", "idle")
    ann.join("room")
    bob.join("room")
    local_cloud.log.wait_for("subscribe", peer="bob", channel="room")
    with metered_peer("eve", media="sfu") as eve:
        eve.join("other room")
    with PatternSource(160, 120, fps=15) as camera:
        sfu_client().publish(camera.video, name="camera")
        viewer = sfu_client(metadata="viewer")
        track = viewer.subscribe(viewer.wait_for_track(name="camera", timeout=20))
        assert read_number(track.read(timeout=20)) >= 0


@pytest.mark.metered(limits=False, permissions=["subscribe", "publish"])
class TestMarked:
    def test_all_use_a_cloud_of_the_test(self, local_cloud, metered_client, metered_env):
        assert local_cloud.url not in addresses
        assert metered_env["METERED_URL"] == local_cloud.url
        ann = metered_client("ann")
        for client in (ann, metered_client(), metered_client("bob")):
            client.publish("chat", 1)
            with pytest.raises(MeteredError, match="Send|send"):
                client.send("ann", 1)
        metered_client("eve", permissions=["send"])

    @pytest.mark.metered(permissions=["send"], max_messages=2, limits=True)
    def test_the_nearest_marker_wins(self, metered_client, fresh_cloud):
        ann = metered_client("ann")
        with pytest.raises(MeteredError):
            ann.publish("chat", 1)
        ann.send("ann", 1)
        ann.send("ann", 1)
        with pytest.raises(MeteredError, match="quota"):
            ann.send("ann", 1)
        with SignallingClient(**fresh_cloud.client_options()) as client:
            with pytest.raises(MeteredError):
                client.publish("chat", 1)


@pytest.mark.metered(limit=False)
def test_a_wrong_marker(local_cloud):
    """An error."""


@pytest.mark.metered("fast")
def test_another_wrong_marker(local_cloud):
    """An error."""
'''

LEAKS = """
import threading

import pytest

from metered_sync import MeteredPeer, SfuClient, SignallingClient, VideoSource
from metered_sync.local import LocalCloud

kept = []


@pytest.fixture(scope="module")
def lasting(request):
    with LocalCloud() as cloud, SignallingClient(**cloud.client_options()) as client:
        yield client


def test_tidy(local_cloud, fresh_cloud, metered_client, metered_peer, sfu_client, lasting):
    metered_client("ann").subscribe("chat").close()
    ann, bob = metered_peer("ann"), metered_peer("bob")
    ann.join("room")
    bob.join("room")
    ann.wait_for_peer("bob", timeout=20).create_data_channel("notes", timeout=20).close()
    sfu_client()
    with SignallingClient(**fresh_cloud.client_options()) as client:
        lasting.publish("chat", 1)


def test_forgets(local_cloud):
    SignallingClient(**local_cloud.client_options()).connect()


def test_keeps(local_cloud):
    cloud = LocalCloud()
    cloud.start()
    client = SignallingClient(**local_cloud.client_options())
    client.connect()
    sfu = SfuClient(**local_cloud.sfu_options())
    sfu.connect()
    kept.extend([cloud, client, sfu])


def test_is_not_blamed_for_others(local_cloud):
    while kept:
        kept.pop()


def test_a_thread_of_ones_own():
    threading.Thread(target=threading.Event().wait, args=[60], daemon=True).start()


def test_uses_nothing():
    pass
"""


def run(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    *options: str,
    **others: str,
) -> pytest.RunResult:
    """Run a project's tests with this plug-in and no others, whatever is installed."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makepyfile(source, **others)
    return pytester.runpytest_subprocess(
        "-p", PLUGIN, "--strict-markers", "-p", "no:cacheprovider", *options, timeout=100
    )


def test_the_fixtures(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("METERED_URL", "METERED_SFU_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("METERED_KEY", "a real one")
    monkeypatch.setenv("METERED_TURN_SECRET_KEY", "a real one, too")
    monkeypatch.setenv("METERED_SYNC_LOOP", "asyncio")
    page = (ROOT / "docs" / "testing.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    done = run(pytester, monkeypatch, FIXTURES, test_guide="\n".join(blocks))
    done.assert_outcomes(passed=10 + 5, errors=2)
    done.stdout.fnmatch_lines(
        [
            "*the marker metered takes limits, permissions, * by name, not limit",
            "*the marker metered takes limits, permissions, * by name, not 'fast'",
        ]
    )


def test_leaks(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METERED_SYNC_LOOP", "asyncio")  # uvloop does not say which sockets it has
    done = run(pytester, monkeypatch, LEAKS, "--metered-leaks", "-rE")
    done.assert_outcomes(passed=6, errors=2)
    done.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_forgets*",
            "the test left open: SignallingClient (collected while it was open); *",
            "*ERROR at teardown of test_keeps*",
            "the test left open: LocalCloud, SfuClient, SignallingClient, socket (*), "
            "thread metered-sync-cloud; use `with`, *",
        ]
    )


def test_each_worker_has_a_cloud_of_its_own(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
    import pathlib

    import pytest

    @pytest.mark.parametrize("number", range(6))
    def test_alone(number, local_cloud, metered_client, worker_id):
        assert not local_cloud.control_plane().peers("chat")
        inbox = metered_client("ann").subscribe("chat")
        metered_client("bob").publish("chat", number)
        assert inbox.get(timeout=20).data == number
        with open(f"used-by-{worker_id}", "a") as used:
            print(local_cloud.url, file=used)
    """
    run(pytester, monkeypatch, source, "-p", "xdist", "-n", "2").assert_outcomes(passed=6)
    used = [set(path.read_text().split()) for path in pytester.path.glob("used-by-*")]
    assert [len(urls) for urls in used] == [1, 1]
    assert used[0] != used[1]


def test_loading_it_imports_nothing_but_itself(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an installed package's: by the entry point that setup.cfg declares."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    points = setup["options.entry_points"]["pytest11"]
    package = pytester.mkdir("site")
    info = package / "probe-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: probe\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[pytest11]{points}\n")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{package}")
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", raising=False)
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest -p no:anyio")
    pytester.makeconftest(
        f"""
        import json, sys

        def pytest_report_header(config):
            assert config.pluginmanager.has_plugin({PLUGIN!r})
            ours = [name for name in sys.modules if name.startswith("metered_sync")]
            others = [name for name in ("aiohttp", "aiortc", "numpy", "websockets", "requests")
                      if name in sys.modules]
            return "loaded: " + json.dumps(sorted(ours) + others)
        """
    )
    pytester.makepyfile("def test_nothing(): pass")
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", timeout=60)
    done.assert_outcomes(passed=1)
    (line,) = [line for line in done.outlines if line.startswith("loaded: ")]
    assert json.loads(line.removeprefix("loaded: ")) == [
        "metered_sync",
        "metered_sync._version",
        "metered_sync.testing",
        PLUGIN,
    ]
