"""Show previews in real kernels, to front ends that answer, or do not."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Iterator
from typing import Any

import av
import pytest

from metered_sync import MediaError, SfuClient
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, read_number
from tests.conftest import run_script
from tests.support.front_end import VIEW, FrontEnd, front_end

SETUP = """
import atexit, os, sys, threading, time
if {plain}:
    sys.modules["ipywidgets"] = None  # as if it were not installed
atexit.register(lambda: open("ended", "w").close())
from metered_sync import SfuClient, ForkedError
from metered_sync.local import LocalCloud
from metered_sync.media.notebook import preview as module
from metered_sync.testing import PatternSource, ToneSource
cloud = LocalCloud(limits=False)
cloud.start()
sender = SfuClient(**cloud.sfu_options())
sender.connect()
pattern, tone = PatternSource(160, 120, fps=15), ToneSource(440)
camera, microphone = (sender.publish(s.tracks[0], name=n) for s, n in ((pattern, "camera"), (tone, "mic")))
sfu = SfuClient(**cloud.sfu_options())
sfu.connect()
track, sound = sfu.subscribe(camera), sfu.subscribe(microphone)
track.snapshot(timeout=20)
def wait(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
"""  # noqa: E501


@pytest.fixture(scope="module", params=["widgets", "plain"])
def face(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FrontEnd]:
    """A front end of a kernel that has a video and an audio track."""
    folder = tmp_path_factory.mktemp(request.param)
    with front_end(folder, SETUP.format(plain=request.param == "plain")) as face:
        face.has_widgets = request.param == "widgets"
        yield face
        face.run("left = track.display()")
    assert (folder / "ended").exists()  # with a preview that nobody stopped


@pytest.fixture(scope="module")
def widgets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontEnd]:
    """The same, with ipywidgets, for tests that need it."""
    with front_end(tmp_path_factory.mktemp("kernel"), SETUP.format(plain=False)) as face:
        yield face


def only_output(face: FrontEnd) -> dict[str, Any]:
    """Return what the latest output shows, of a cell that has made one only."""
    (name,) = face.cells[next(reversed(face.cells))]
    return face.displays[name]


def pixels(picture: str | bytes) -> Any:
    data = base64.b64decode(picture) if isinstance(picture, str) else picture
    with av.open(io.BytesIO(data)) as container:
        return next(container.decode(video=0)).to_ndarray(format="gray")


def shown(face: FrontEnd) -> dict[str, Any]:
    """Return what a person sees in the latest output."""
    bundle = only_output(face)
    if VIEW not in bundle:
        return bundle
    model = face.models[bundle[VIEW]["model_id"]]
    mime = "text/html" if model["_model_name"] == "HTMLModel" else f"image/{model['format']}"
    return {mime: model["value"]}


def legible(face: FrontEnd) -> int:
    """Return the number in a picture; the encoder now and then leaves a block as it was."""
    numbers: list[int | None] = []

    def read() -> bool:
        numbers.append(read_number(pixels(shown(face)["image/jpeg"])))
        return numbers[-1] is not None

    face.until(read)
    number = numbers[-1]
    assert number is not None
    return number


# --- in a notebook --------------------------------------------------------------------


def test_a_preview_is_live_in_one_output(face: FrontEnd) -> None:
    face.run("preview = track.display(width=128)\npreview")
    made = len(face.cells)
    face.until(lambda: "image/jpeg" in shown(face))
    first = legible(face)
    face.run("wait(lambda n=preview.shown: preview.shown > n + 3)")  # while a cell runs
    face.updates = 0
    face.until(lambda: face.updates > 3)  # and after it
    assert pixels(shown(face)["image/jpeg"]).shape == (96, 128)
    assert legible(face) > first
    assert (VIEW in only_output(face)) == face.has_widgets
    assert "image/jpeg" in only_output(face)  # for who opens what is saved now
    assert re.match(
        r"<Preview of video track 'camera': live, \d+ shown>", face.run("print(preview)")
    )

    face.run("preview.stop(); preview.stop(); assert preview.stopped")
    face.updates = 0
    face.run("preview")  # said in words, in another cell
    assert re.match("<Preview of .*: stopped", only_output(face)["text/plain"])
    face.listen(0.5)
    assert face.updates == 0
    assert len(face.cells) == made + 1
    name = list(face.cells.values())[made - 1][0]
    assert read_number(pixels(face.displays[name]["image/jpeg"])) is not None
    assert VIEW not in face.displays[name]  # what is saved needs no widget


def test_a_level_meter(face: FrontEnd) -> None:
    face.run("meter = sound.display()")
    loud = r"-1[45]\.\d dBFS, peak -1[12]\.\d"
    face.until(lambda: re.search(loud, shown(face).get("text/html", "")))
    face.run(
        "import numpy as np\n"
        "from metered_sync import AudioSource\n"
        "loud = AudioSource(input_rate=48000, max_buffered_seconds=60)\n"
        "loud.push(np.sin(2 * np.pi * 880 * np.arange(50 * 48000) / 48000))\n"
        "sender_two = SfuClient(**cloud.sfu_options())"
    )
    face.run(
        "sender_two.connect()\n"
        "quiet = sfu.subscribe(sender_two.publish(loud))\n"
        "quiet.frames().get(timeout=20)\nmeter.stop()\nmeter = quiet.display()"
    )
    face.until(lambda: re.search(r" -[23]\.\d dBFS", shown(face).get("text/html", "")))
    face.run("loud.clear()")  # silence: it falls, and then its peak does
    face.until(lambda: re.search(r"-∞ dBFS, peak +-∞", shown(face)["text/html"]))
    face.run("meter.stop(); sender_two.close()")
    assert "-∞ dBFS" in list(face.displays.values())[-1]["text/html"]


def test_what_ends_a_preview(face: FrontEnd) -> None:
    face.run(
        "with track.display() as preview:\n    wait(lambda: preview.shown)\nassert preview.stopped"
    )
    assert "image/jpeg" in only_output(face)

    face.run("preview = track.display()", cell_id="a")
    face.run("1 + 1", cell_id="b")
    face.run("assert not preview.stopped")
    face.run("assert preview.stopped", cell_id="a")  # its cell is run again

    face.run(
        "other = SfuClient(**cloud.sfu_options())\nother.connect()\n"
        "seen, heard = other.subscribe(camera), other.subscribe(microphone)\n"
        "previews = [seen.display(), heard.display()]\n"
        "wait(lambda: all(preview.shown for preview in previews))\n"
        "other.close()"
    )
    face.run("wait(lambda: all(preview.stopped for preview in previews))")
    face.run(
        "try:\n    seen.display()\nexcept Exception as error:\n    assert 'ended' in str(error)\n"
        "else:\n    assert False"
    )
    face.run(
        "wait(lambda: not [t for t in threading.enumerate() if 'preview' in t.name])\n"
        "assert not [f for fs in get_ipython().events.callbacks.values() for f in fs\n"
        "            if 'Preview' in str(f)]"
    )


def test_previews_leave_nothing(face: FrontEnd) -> None:
    face.run(
        "def count():\n"
        "    comms = get_ipython().kernel.comm_manager.comms\n"
        "    return len(comms), len(track._core.incoming.readers), threading.active_count()\n"
        "before = count()\n"
        "for _ in range(10):\n"
        "    with track.display() as preview:\n"
        "        wait(lambda: preview.shown)\n"
        "del preview\n"
        "wait(lambda: count() == before)"
    )


def test_no_secret_is_sent_to_the_notebook(face: FrontEnd) -> None:
    secrets = face.run(
        "with track.display():\n    pass\nwith sound.display():\n    pass\n"
        "print(cloud.sfu_secret, cloud.publishable_key, cloud.key_secret)"
    ).split()
    assert len(secrets) == 3
    sent = [m for m in face.seen if m["msg_type"] not in ("stream", "execute_input")]
    everything = json.dumps(sent, default=str)
    assert len(everything) > 10000
    for secret in secrets:
        assert secret not in everything


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork on this platform")
def test_a_forked_child_cannot_stop_it(face: FrontEnd) -> None:
    face.run(
        "preview = track.display()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    try:\n        preview.stop()\n"
        "    except ForkedError:\n        os._exit(7)\n"
        "    finally:\n        os._exit(1)\n"
        "status = os.waitpid(child, 0)[1]\n"
        "assert os.waitstatus_to_exitcode(status) == 7\n"
        "wait(lambda n=preview.shown: preview.shown > n)\n"
        "preview.stop()"
    )


def test_a_front_end_that_does_not_answer(face: FrontEnd) -> None:
    # (The kernel, busy with this cell, would not hear it either.)
    face.answering = False
    face.run(
        "started = time.monotonic()\npreview = track.display(fps=60)\n"
        "wait(lambda: preview.shown > 8)\n"
        "shown, seconds = preview.shown, time.monotonic() - started\npreview.stop()\n"
        "assert shown <= 3 + seconds / module.UNANSWERED_INTERVAL, (shown, seconds)"
    )
    face.answering = True


def test_it_rests_where_nobody_seems_to_be(face: FrontEnd) -> None:
    face.answering = False
    face.run(
        "module.MAX_UNANSWERED, module.FIRST_RETRY = 6, 60\npreview = track.display()\n"
        "wait(lambda: preview.shown == 6)\ntime.sleep(1)\nassert preview.shown == 6"
    )
    face.answering = True
    face.run("wait(lambda: preview.shown > 8)")  # somebody runs a cell
    face.run("preview.stop(); module.MAX_UNANSWERED, module.FIRST_RETRY = 3000, 5.0")


# --- answers --------------------------------------------------------------------------


def test_pictures_in_flight_are_limited(widgets: FrontEnd) -> None:
    widgets.run("module.FIRST_RETRY = 60\npreview = track.display(fps=60)")
    widgets.until(lambda: widgets.updates > 5)  # faster than it would go unanswered
    widgets.answering = False
    widgets.updates = 0
    widgets.listen(2)
    assert widgets.updates <= 2 + 2  # of which two had been answered, or were on their way
    widgets.run(  # a kernel that is busy, and cannot hear, goes on slowly
        "started, before = time.monotonic(), preview.shown\n"
        "wait(lambda: preview.shown > before + 3)\n"
        "seconds = time.monotonic() - started\n"
        "assert preview.shown - before <= 3 + seconds / module.UNANSWERED_INTERVAL"
    )
    widgets.updates = 0
    widgets.answer()
    widgets.until(lambda: widgets.updates > 5)
    widgets.run("preview.stop(); module.FIRST_RETRY = 5.0")


def test_a_front_end_that_is_gone_is_tried_now_and_then(widgets: FrontEnd) -> None:
    widgets.run("module.FIRST_RETRY = 0.5\npreview = track.display()")
    widgets.until(lambda: widgets.updates > 3)
    widgets.answering = False
    widgets.listen(0.5)
    widgets.updates = 0
    widgets.until(lambda: widgets.updates >= 2)
    assert VIEW in only_output(widgets)  # it has widgets: a page that is opened again shows them
    widgets.answer()
    widgets.run("preview.stop(); module.FIRST_RETRY = 5.0")


def test_the_end_of_a_track_is_seen_while_no_answer_comes(widgets: FrontEnd) -> None:
    widgets.run(
        "module.FIRST_RETRY = 60\nother = SfuClient(**cloud.sfu_options())\nother.connect()\n"
        "preview = other.subscribe(camera).display()"
    )
    widgets.until(lambda: widgets.updates > 3)
    widgets.answering = False
    widgets.run("threading.Timer(1, other.close).start()")
    widgets.until(lambda: VIEW not in only_output(widgets))
    widgets.answer()
    widgets.run("wait(lambda: preview.stopped); module.FIRST_RETRY = 5.0")


def test_a_front_end_without_widgets_gets_plain_pictures(widgets: FrontEnd) -> None:
    widgets.answering = False
    widgets.run("module.FIRST_RETRY = 0.5\npreview = track.display()")
    assert VIEW in only_output(widgets)
    widgets.until(lambda: VIEW not in only_output(widgets))
    first = read_number(pixels(only_output(widgets)["image/jpeg"]))
    assert first is not None
    widgets.until(lambda: read_number(pixels(only_output(widgets)["image/jpeg"])) != first)
    widgets.run("preview.stop(); module.FIRST_RETRY = 5.0")
    widgets.answering = True


# --- elsewhere ------------------------------------------------------------------------


def test_outside_of_a_notebook() -> None:
    with (
        PatternSource(160, 120, fps=15) as pattern,
        LocalCloud() as cloud,
        SfuClient(**cloud.sfu_options()) as sfu,
    ):
        track = sfu.subscribe(sfu.publish(pattern.video, name="camera"))
        with pytest.raises(MediaError, match="video track 'camera' in a Jupyter notebook, and"):
            track.display()
        wrong: list[dict[str, Any]] = [
            {"fps": 0}, {"fps": 61}, {"fps": True}, {"fps": math.nan}, {"fps": "fast"},
            {"width": 0}, {"width": 100.5}, {"width": 5000}, {"quality": 0}, {"quality": 101},
        ]  # fmt: skip
        for arguments in wrong:
            (name,) = arguments
            with pytest.raises(
                ValueError, match=f"^{name} must be a .*(above 0 and at most|from 1 to)"
            ):
                track.display(**arguments)
        assert len(track._core.incoming.readers) == 0


def test_nothing_is_loaded_before_it_is_needed() -> None:
    done = run_script(
        "import sys, metered_sync\n"
        "assert not {'av', 'numpy', 'PIL', 'IPython', 'ipywidgets'} & set(sys.modules)\n"
        "metered_sync.RemoteTrack, metered_sync.Preview, metered_sync.Snapshot\n"
        "assert not {'PIL', 'IPython', 'ipywidgets'} & set(sys.modules)\n"
    )
    assert (done.returncode, done.stderr) == (0, "")
