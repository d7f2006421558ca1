"""Choose containers and encoders by suffix."""

from __future__ import annotations

import av
import pytest

from metered_sync import MediaError
from metered_sync.media.recording.formats import FILE_FORMATS, FileFormat, check_encoders


@pytest.mark.parametrize("suffix", sorted(FILE_FORMATS))
def test_every_format_can_be_written_with_the_wheels_of_pyav(suffix: str) -> None:
    format = FILE_FORMATS[suffix]
    check_encoders(format, f"a{suffix}")
    assert format.container in av.formats_available
    assert (format.video is None) == (suffix in (".m4a", ".ogg", ".opus", ".wav"))


def test_a_missing_encoder_is_named() -> None:
    with pytest.raises(MediaError, match=r"'a\.mp4' cannot.* lacks the encoder aac_plus; use"):
        check_encoders(FileFormat("mp4", "aac_plus"), "a.mp4")
    with pytest.raises(MediaError, match="lacks the encoder aac_plus and h265_plus; use"):
        check_encoders(FileFormat("mp4", "aac_plus", ("h265_plus", {})), "a.mp4")
