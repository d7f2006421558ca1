"""Give readers frames of their own, and keep filter graphs from being freed in a child."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from av import CodecContext, Packet

from metered_sync.media.tracks.shared_frames import FrameCopier
from metered_sync.testing import read_number
from tests.conftest import run_script
from tests.support.far_end import Far, picture
from tests.support.receivers import bitstreams


def test_a_copy_is_an_equal_frame_over_pixels_of_its_own() -> None:
    copier = FrameCopier()
    for width, format in ((64, "yuv420p"), (64, "yuv420p"), (32, "bgr24"), (64, "yuv420p")):
        frame = picture(3, width, format=format)
        before = frame.to_ndarray()
        copy = copier.copied(frame)
        assert (copy.pts, copy.time_base) == (9000, Fraction(1, 90000))
        assert (copy.width, copy.height, copy.format.name) == (width, 48, format)
        assert np.array_equal(copy.to_ndarray(), before)
        for plane in copy.planes:
            plane.update(bytes(plane.buffer_size))
        assert np.array_equal(frame.to_ndarray(), before)


def test_a_copy_of_a_frame_without_a_time() -> None:
    frame = picture(3)
    frame.pts = None
    assert FrameCopier().copied(frame).time == (None if frame.time is None else pytest.approx(0))


@pytest.mark.parametrize("codec", ["vp8", "h264"])
def test_who_writes_into_a_frame_spoils_no_picture_that_follows(codec: str) -> None:
    """A decoder goes on from the pictures that it has handed out."""
    far = Far()
    reader = far.track.frames()
    decoder: Any = CodecContext.create(codec, "r")
    for number, data in enumerate(bitstreams(codec, 20)):
        (frame,) = decoder.decode(Packet(data))
        far.send(frame)
        mine = reader.get(timeout=20)
        assert read_number(mine.to_ndarray(format="gray")) == number
        for plane in mine.planes:
            plane.update(bytes(plane.buffer_size))


def test_readers_convert_the_same_pictures_at_the_same_time() -> None:
    # In a process of its own: converting one frame in two threads crashes it.
    done = run_script(
        """
import threading, numpy as np
from tests.support.far_end import Far, picture
FORMATS = "bgr24", "gray", "bgr24"
far = Far()
readers = [far.track.frames(mode="fifo", maxsize=120) for _ in FORMATS]
for number in range(120):
    far.send(picture(number % 10, 320, 240))
right = [[picture(n, 320, 240).to_ndarray(format=f) for n in range(10)] for f in FORMATS]
barrier = threading.Barrier(len(FORMATS))
wrong = []
def convert(index):
    for number in range(120):
        frame = readers[index].get(timeout=20)
        barrier.wait(60)
        if not np.array_equal(frame.to_ndarray(format=FORMATS[index]), right[index][number % 10]):
            wrong.append((index, number))
threads = [threading.Thread(target=convert, args=(index,)) for index in range(len(FORMATS))]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(wrong)
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_a_forked_child_frees_no_filter_graph() -> None:
    # (It would wait for ever for the graph's threads, which are not there.)
    done = run_script(
        """
import gc, os, signal, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: of any fork beside threads
from av.filter import Graph
from metered_sync.bridge.process import keep_in_child
class Owner:
    pass
owner = Owner()
owner.graph = graph = Graph()
source = graph.add_buffer(width=64, height=48, format="yuv420p", time_base="1/90000")
scale = graph.add("scale", "32:24")
source.link_to(scale); scale.link_to(graph.add("buffersink")); graph.configure()
keep_in_child(owner)
del source, scale, graph
if not (child := os.fork()):
    signal.alarm(20)
    del owner
    gc.collect()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    )
    assert (done.returncode, done.stderr) == (0, "")
