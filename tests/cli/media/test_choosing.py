"""Test which tracks a command line means."""

from __future__ import annotations

import pytest

from metered_sync import MediaError, SfuNotFoundError, TrackInfo
from metered_sync.cli.media.choosing import choose, first_video

VIDEO = TrackInfo("s", "t1", "camera", "video")
AUDIO = TrackInfo("s", "t2", "camera", "audio")
SLIDES = TrackInfo("s", "t3", None, "video")
MASKED = TrackInfo("s", "t4", "t3", "audio")
"""A track whose name is another one's id."""
LISTED = (VIDEO, AUDIO, SLIDES, MASKED)


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ([], list(LISTED)),
        (["t2"], [AUDIO]),
        (["camera"], [VIDEO, AUDIO]),
        (["t3", "t1"], [SLIDES, VIDEO]),
        (["camera", "t1", "t1"], [VIDEO, AUDIO]),
        (["t3"], [SLIDES]),
    ],
)
def test_tracks_are_chosen_by_id_and_then_by_name(
    wanted: list[str], chosen: list[TrackInfo]
) -> None:
    assert choose(LISTED, "s", wanted) == chosen


def test_what_is_not_there_is_told_with_what_is() -> None:
    with pytest.raises(
        SfuNotFoundError, match=r"session s has no track 't9'; it has video t1 \(camera\)"
    ):
        choose(LISTED, "s", ["t1", "t9"])
    for wanted in ([], ["t1"]):
        with pytest.raises(SfuNotFoundError, match="session s publishes nothing"):
            choose([], "s", wanted)


def test_a_snapshot_is_of_the_first_pictures() -> None:
    assert first_video([AUDIO, SLIDES, VIDEO]) is SLIDES
    with pytest.raises(MediaError, match="snapshot is of pictures"):
        first_video([AUDIO])
