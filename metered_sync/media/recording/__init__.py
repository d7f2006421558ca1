"""Recording: tracks into a media file.

=========== ============================================================================
recorder    what a user calls: add tracks, start, stop
info        how far a recording has come
recording   a recording under way, on a thread of its own
inputs      take the frames of tracks, hold them until they are placed, pass them on
clock       place tracks that each count time in their own way on one clock
mixing      mix the sound of all tracks
sound       the file's stream of sound: one track's as it is, or what was mixed
fitting     fit pictures into the size of their stream
formats     the container and encoders of each suffix
muxing      encode pictures, and mux into the file
output_file write the file so that it can be played whatever goes wrong
=========== ============================================================================
"""

from metered_sync.media.recording.info import RecordedStream, RecordingInfo
from metered_sync.media.recording.recorder import Recorder

__all__ = ["RecordedStream", "Recorder", "RecordingInfo"]
