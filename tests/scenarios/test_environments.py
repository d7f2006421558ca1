"""Machines that lack something: a network, an extra."""

from __future__ import annotations

import subprocess
import sys

import pytest

import metered_sync
from tests.conftest import ROOT, need, run_script

HIDE = """
import sys
class Hide:
    "Make packages look as if they were not installed."
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
"""


def test_a_machine_whose_only_network_is_loopback() -> None:
    need("ip", "iproute2")
    unshare = need("unshare", "util-linux")
    source = """
from metered_sync import SfuClient, SignallingClient
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, read_number
with LocalCloud() as cloud:
    with SignallingClient(**cloud.client_options()) as client:
        client.publish("x", 1)
    with SfuClient(**cloud.sfu_options()) as a, SfuClient(**cloud.sfu_options()) as b:
        track = b.subscribe(a.publish(PatternSource(160, 120, 15).video))
        print(read_number(track.read(timeout=20)) is not None)
"""
    inner = 'ip link set lo up && exec "$0" -c "$1"'
    done = subprocess.run(
        [unshare, "--net", "--map-root-user", "sh", "-c", inner, sys.executable, source],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("this machine does not let processes make network namespaces")
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.parametrize("name", ["SfuClient", "from_file", "RemoteTrack"])
@pytest.mark.parametrize("hidden", [("aiortc",), ("av",), ("numpy", "aiortc", "av")])
def test_without_webrtc_media_names_say_what_to_install(name: str, hidden: tuple[str, ...]) -> None:
    source = f"""
{HIDE.format(hidden=hidden)}
import metered_sync
from metered_sync import *
assert SignallingClient and mint_token
try:
    metered_sync.{name}
except ImportError as error:
    print(error)
"""
    done = run_script(source)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    assert name in done.stdout
    assert "pip install 'metered_sync[webrtc]'" in done.stdout


@pytest.mark.parametrize("hidden", [("aiortc",), ("numpy",)])
def test_without_webrtc_its_names_are_not_there_for_those_who_ask(hidden: tuple[str, ...]) -> None:
    source = f"""
{HIDE.format(hidden=hidden)}
import inspect, metered_sync, pydoc
for name in ("MeteredPeer", "SfuClient", "Recorder", "VideoSource", "from_file"):
    assert not hasattr(metered_sync, name), name
    assert getattr(metered_sync, name, None) is None, name
    assert name in dir(metered_sync)
    for ask in (getattr, lambda module, name: exec(f"module.{{name}}", dict(module=module)),
                lambda module, name: exec(f"module.{{name}}()", dict(module=module)),
                lambda module, name: exec(f"from metered_sync import {{name}}")):
        try:
            ask(metered_sync, name)
        except (AttributeError if ask is getattr else ImportError) as error:
            assert "pip install 'metered_sync[webrtc]'" in str(error), error
        else:
            raise AssertionError(name)
for name in ("SignallingClient", "SfuApi", "Track", "mint_token"):
    assert hasattr(metered_sync, name)
members = dict(inspect.getmembers(metered_sync))
assert "SignallingClient" in members and "MeteredPeer" not in members
assert "class SignallingClient" in pydoc.plain(pydoc.render_doc(metered_sync))
names = dict()
exec("from metered_sync import *", names)
assert "SignallingClient" in names and "MeteredPeer" not in names
print("ok")
"""
    done = run_script(source)
    assert (done.stdout, done.stderr) == ("ok\n", "")


def test_with_webrtc_a_star_brings_its_names() -> None:
    source = """
import sys, metered_sync
loaded = [name for name in ("aiortc", "av", "numpy") if name in sys.modules]
from metered_sync import *
missing = [name for name in dir(metered_sync) if name not in globals() and name != "__all__"]
print(loaded, missing, MeteredPeer.__name__, from_file.__name__)
"""
    done = run_script(source)
    assert (done.stdout, done.stderr) == ("[] [] MeteredPeer from_file\n", "")


@pytest.mark.parametrize("module", ["metered_sync.local", "metered_sync.testing.sources"])
def test_without_their_extra_modules_say_what_to_install(module: str) -> None:
    source = f"""
{HIDE.format(hidden=("aiohttp", "aiortc"))}
try:
    import {module}
except ImportError as error:
    print(error)
"""
    done = run_script(source)
    extra = "local" if module.endswith("local") else "webrtc"
    assert done.stderr == ""
    assert f"pip install 'metered_sync[{extra}]'" in done.stdout


def test_pub_sub_needs_nothing_but_the_base(served_cloud: dict[str, str]) -> None:
    hidden = ("aiohttp", "aiortc", "aioice", "av", "numpy", "rich", "PIL", "uvloop", "cv2")
    source = f"""
{HIDE.format(hidden=hidden)}
from metered_sync import SignallingClient
with SignallingClient(url=sys.argv[1], api_key=sys.argv[2]) as client:
    inbox = client.subscribe("base")
    client.publish("base", 1)
print("ok")
"""
    done = run_script(source, served_cloud["url"], served_cloud["publishable_key"])
    assert (done.stdout, done.stderr) == ("ok\n", "")


def test_names_that_live_in_another_module_say_where() -> None:
    for name, module in (("LocalCloud", "local"), ("PatternSource", "testing")):
        with pytest.raises(ImportError, match=f"from metered_sync.{module} import {name}"):
            exec(f"from metered_sync import {name}")
        with pytest.raises(AttributeError, match=f"from metered_sync.{module} import {name}"):
            getattr(metered_sync, name)
        assert not hasattr(metered_sync, name)
    with pytest.raises(ImportError, match="'SignalingClient': is SignallingClient meant"):
        exec("from metered_sync import SignalingClient")
    with pytest.raises(ImportError, match="cannot import name 'Nonsense'"):
        exec("from metered_sync import Nonsense")
    done = run_script("import metered_sync; metered_sync.SignalingClient")
    assert "no attribute 'SignalingClient'" in done.stderr
    assert "Did you mean: 'SignallingClient'" in done.stderr
