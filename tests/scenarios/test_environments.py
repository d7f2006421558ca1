"""Machines that lack something: a network, an extra."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
