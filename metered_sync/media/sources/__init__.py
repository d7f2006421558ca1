"""Sources: where the frames of local tracks come from.

=============== =======================================================================
base            give all sources their tracks, their clock, and one way to be stopped
files           media files, played in real time
demuxing        read a media file once, in the order of playing
discontinuities the clock of a file that jumps
live            sources that cannot be made to wait
playout         decode live streams, and place their frames in time
rtsp            network cameras
packets         the packets of files and cameras, sent as they are
encoded         pictures that a user's encoder makes
devices         cameras, microphones and screens of this machine
video           pictures that a program makes
pace            the time of the next picture, for those who push
audio           sound that a program makes
sound_input     convert bytes, arrays and frames of sound to the format that is sent
=============== =======================================================================

A source reads on a thread of its own and feeds :mod:`metered_sync.engine.sending`; what becomes
of its tracks (a room, the SFU, a recording) is not known here.
"""

from metered_sync.media.sources.base import Source, TrackSource

__all__ = ["Source", "TrackSource"]
