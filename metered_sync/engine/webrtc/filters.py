"""Run frames through FFmpeg's filters, which know all that a frame says of itself."""

from __future__ import annotations

from fractions import Fraction

from av import VideoFrame
from av.filter import Graph

from metered_sync.bridge.process import keep_in_child
from metered_sync.engine.webrtc.media_frames import needs_padding

__all__ = ["COPY", "FilterChain", "Step", "new_graph"]

Step = tuple[str, str]
"""A filter's name, and its arguments as FFmpeg writes them."""
COPY: Step = ("copy", "")
"""Copies a frame into memory of its own, which may be read past its end."""
UNSPECIFIED = 2
"""FFmpeg's number for a colour matrix that is not known."""
KNOWN_MATRICES = frozenset((1, 2, 4, 5, 6, 7, 8, 9, 10))
"""FFmpeg's numbers for the colour matrices that its scaler knows (ITU-T H.273, table 4)."""


def new_graph() -> Graph:
    """Return a filter graph that starts one thread at most, where PyAV can ask for that."""
    graph = Graph()
    if hasattr(graph, "threads"):  # PyAV 15 and later
        graph.threads = 1
    return graph


class FilterChain:
    """Run frames through a row of filters; on any thread, one at a time.

    The filters are made anew when frames of another kind come, or others are wanted.
    """

    def __init__(self) -> None:
        self._made: object = None
        self._graph: Graph | None = None
        self._copier: FilterChain | None = None
        keep_in_child(self)

    def run(self, frame: VideoFrame, *steps: Step) -> VideoFrame:
        """Return what the filters make of a frame: a new frame, perhaps over the same pixels.

        Its rows run downwards, and it may be converted without reading past a caller's memory.
        """
        if steps[:1] != (COPY,) and _needs_copy(frame):
            # (In a chain of its own: frames that need it alternate with others that do not.)
            self._copier = self._copier or FilterChain()
            frame = self._copier.run(frame, COPY)
        kind = (
            frame.width, frame.height, frame.format.name, frame.time_base,
            int(frame.colorspace), int(frame.color_range), steps,
        )  # fmt: skip
        graph = self._graph
        if graph is None or self._made != kind:
            self._graph = None
            graph = _graph(frame, steps)
        self._made = None  # what has failed is not used again
        graph.push(frame)
        result = graph.pull()
        self._made, self._graph = kind, graph
        assert isinstance(result, VideoFrame)
        return result


def _needs_copy(frame: VideoFrame) -> bool:
    return needs_padding(frame) or any(plane.line_size < 0 for plane in frame.planes)


def _graph(frame: VideoFrame, steps: tuple[Step, ...]) -> Graph:
    graph = new_graph()
    base = frame.time_base or Fraction(1, 90000)
    source = (
        f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}"
        f":time_base={base.numerator}/{base.denominator}"
    )
    if not frame.format.is_rgb and len(frame.format.components) > 2:
        matrix = int(frame.colorspace)
        matrix = matrix if matrix in KNOWN_MATRICES else UNSPECIFIED
        source += f":colorspace={matrix}:range={int(frame.color_range)}"
    last = graph.add("buffer", source)
    for name, arguments in (*steps, ("buffersink", "")):
        following = graph.add(name, arguments or None)
        last.link_to(following)
        last = following
    graph.configure()
    return graph
