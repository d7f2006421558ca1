"""Pictures of known colours, in files of every pixel format, as FFmpeg's own programs see them."""

from __future__ import annotations

import functools
import gc
import struct
import subprocess
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from aiortc import RTCRtpSender
from av import VideoFrame
from av.filter import Graph

from tests.conftest import need

PATCHES = ((40,) * 3, (230,) * 3, (200, 30, 30), (30, 200, 30), (30, 30, 200), (128,) * 3)
"""The colours, red, green and blue, from left to right."""
SIDE = 32
"""Pixels of a patch's side."""
WIDTH, HEIGHT = SIDE * len(PATCHES), 2 * SIDE
MATRICES = {
    "bt709": "-colorspace bt709 -color_primaries bt709 -color_trc bt709",
    "bt2020": "-colorspace bt2020nc -color_primaries bt2020 -color_trc bt2020-10",
    "smpte240m": "-colorspace smpte240m",
}


def _x264(matrix: str, range_: str = "tv", format: str = "yuv420p") -> str:
    return (
        f"libx264 -qp 4 -pix_fmt {format} -vf scale=out_color_matrix={matrix}:out_range={range_} "
        f"-color_range {range_} {MATRICES[matrix]}"
    )


_HEVC = "libx265 -x265-params log-level=error:qp=4"
_VP9 = "libvpx-vp9 -crf 4 -b:v 0"
_TO_FULL = "-vf scale=out_range=pc -color_range pc"
FILES = {
    "rgb24.png": "png -pix_fmt rgb24",
    "rgba.png": "png -pix_fmt rgba",
    "gray.mkv": "ffv1 -pix_fmt gray",
    "gray10.mkv": "ffv1 -pix_fmt gray10le",
    "gray16.mkv": "ffv1 -pix_fmt gray16le",
    "yuv444p.mkv": "ffv1 -pix_fmt yuv444p",
    "bgr0.mkv": "ffv1 -pix_fmt bgr0",
    "gbrp10.mkv": "ffv1 -pix_fmt gbrp10le",
    "x264rgb.mkv": "libx264rgb -qp 0 -pix_fmt rgb24",
    "yuvj420p.mkv": "libx264 -qp 4 -pix_fmt yuvj420p",
    "yuvj444p.mkv": "libx264 -qp 4 -pix_fmt yuvj444p",
    "yuvj422p.avi": "mjpeg -q:v 2 -pix_fmt yuvj422p",
    "yuv420p10.mkv": "libx264 -qp 4 -pix_fmt yuv420p10le",
    "vp9.webm": f"{_VP9} -pix_fmt yuv420p",
    "vp9full.webm": f"{_VP9} -pix_fmt yuv420p {_TO_FULL}",
    "hevc.mp4": f"{_HEVC} -pix_fmt yuv420p",
    "hevc10full.mp4": f"{_HEVC}:range=full -pix_fmt yuv420p10le {_TO_FULL}",
    "uyvy.avi": "rawvideo -pix_fmt uyvy422",
    "mpeg2.ts": "mpeg2video -q:v 2 -g 1 -pix_fmt yuv422p",
    "bt709.mp4": _x264("bt709"),
    "bt709full.mp4": _x264("bt709", "pc"),
    "bt2020.mp4": _x264("bt2020", format="yuv420p10le"),
    "smpte240m.mp4": _x264("smpte240m"),
}
"""The encoder of each file, and its options."""


def patches() -> Any:
    """Return the picture, as RGB."""
    return np.repeat(np.array([PATCHES], np.uint8).repeat(HEIGHT, 0), SIDE, 1)


def ffmpeg(*arguments: str | Path, given: bytes = b"") -> bytes:
    """Run FFmpeg; return what it writes to its standard output."""
    command = [need("ffmpeg", "ffmpeg"), "-v", "error", "-y", *map(str, arguments)]
    done = subprocess.run(command, input=given, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


class ColourFiles:
    """All files, of 25 pictures each, and what FFmpeg shows of them."""

    def __init__(self) -> None:
        """Write them; they are there as long as this is."""
        self._held = tempfile.TemporaryDirectory()
        self._folder = folder = Path(self._held.name)
        raw = ("-f", "rawvideo", "-pix_fmt", "rgb24")
        outputs: list[str | Path] = []
        for name, options in FILES.items():
            outputs += ["-frames:v", "1" if name.endswith(".png") else "25"]
            outputs += ["-c:v", *options.split(), "-threads", "1", folder / name]
        source = (*raw, "-s", f"{WIDTH}x{HEIGHT}", "-r", "25", "-i", "-")
        ffmpeg(*source, *outputs, given=patches().tobytes() * 25)
        inputs = [item for name in FILES for item in ("-i", folder / name)]
        shown = [
            item
            for number, name in enumerate(FILES)
            for item in ("-map", f"{number}:v", "-frames:v", "1", *raw, folder / f"{name}.rgb")
        ]
        ffmpeg(*inputs, *shown)

    def path(self, name: str) -> Path:
        """Return a file's path."""
        return self._folder / name

    def shown(self, name: str) -> Any:
        """Return the first picture as FFmpeg shows it, as RGB."""
        data = self.path(f"{name}.rgb").read_bytes()
        return np.frombuffer(data, np.uint8).reshape(HEIGHT, WIDTH, 3)


@functools.cache
def colour_files() -> ColourFiles:
    """Return the files, the same for all tests."""
    return ColourFiles()


def first_frame(path: Path) -> VideoFrame:
    """Return the first picture of a file as it is decoded."""
    with av.open(str(path)) as container:
        return next(container.decode(video=0))


def colours(rgb: Any) -> Any:
    """Return the mean colour in the middle of each patch of a picture, as RGB."""
    side = rgb.shape[1] // len(PATCHES)
    rows = slice(rgb.shape[0] // 4, -(rgb.shape[0] // 4))
    inner = [slice(n * side + side // 3, (n + 1) * side - side // 3) for n in range(len(PATCHES))]
    return np.array([rgb[rows, columns].reshape(-1, 3).mean(0) for columns in inner])


def bt601(frame: Any) -> Any:
    """Return a picture in yuv420p as RGB, by the formulas of BT.601 for 16 to 235."""
    height, width = frame.height, frame.width
    planes = []
    for plane in frame.planes:
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        planes.append(rows[: plane.height, : plane.width].astype(float))
    y = (planes[0] - 16) * 255 / 219
    u, v = (p.repeat(2, 0).repeat(2, 1)[:height, :width] - 128 for p in planes[1:])
    u, v = u * 255 / 224, v * 255 / 224
    return np.stack([y + 1.402 * v, y - 0.344136 * u - 0.714136 * v, y + 1.772 * u], -1).clip(
        0, 255
    )


def apart(rgb: Any, other: Any) -> float:
    """Return by how much the patches of two pictures differ, at most."""
    return float(np.abs(colours(rgb) - colours(other)).max())


def set_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Write a display matrix into an MP4 file: the upper left numbers, -1 to 1."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    rows = (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    data[at : at + 36] = struct.pack(">9i", *rows)
    path.write_bytes(data)


def filtered(frame: VideoFrame, name: str, arguments: str | None = None) -> VideoFrame:
    """Return a frame after a filter."""
    frame.time_base = Fraction(1, 90000)
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    one, sink = graph.add(name, arguments), graph.add("buffersink")
    source.link_to(one)
    one.link_to(sink)
    graph.configure()
    graph.push(frame)
    result = graph.pull()
    assert isinstance(result, VideoFrame)
    return result


class PhoneExtensions:
    """Header extensions of a sender of aiortc's, with those that a telephone's would have."""

    def __init__(self, sender: Any) -> None:
        """Have a sender write them, under the numbers that are offered."""
        self.orientation = 0
        self._inner = sender._RTCRtpSender__rtp_header_extensions_map
        sender._RTCRtpSender__rtp_header_extensions_map = self

    def configure(self, parameters: Any) -> None:
        self._inner.configure(parameters)

    def set(self, values: Any) -> tuple[int, bytes]:
        _, data = self._inner.set(values)
        data += bytes((13 << 4, self.orientation))
        return 0xBEDE, data + bytes(-len(data) % 4)


def video_senders() -> list[Any]:
    """Return all senders of pictures in this process that send."""
    return [
        one
        for one in gc.get_objects()
        # (Of proxies and lazy objects isinstance() asks more than they can tell.)
        if issubclass(type(one), RTCRtpSender) and one.kind == "video" and one.track is not None
    ]
