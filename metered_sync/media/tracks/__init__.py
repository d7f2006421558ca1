"""Tracks that arrive, and the ways to read their frames.

============= =========================================================================
track         a track that a peer or the SFU sends
core          what a track and its readers share
frame_queue   queue a track's frames for one reader
callbacks     call functions with a track's frames
capture       read a track as OpenCV's ``VideoCapture``
pcm           cut sound into arrays of samples, all of one length
iteration     iterate over the frames of any track
given         find the tracks that a user means, by whatever stands for them
stream        group tracks under a name
shared_frames share FFmpeg's objects between threads
============= =========================================================================

Frames arrive from :mod:`metered_sync.engine.webrtc`; whatever converts them runs on the
reader's thread.
"""

from metered_sync.media.tracks.callbacks import FrameCallback
from metered_sync.media.tracks.capture import VideoCapture
from metered_sync.media.tracks.frame_queue import FrameQueue
from metered_sync.media.tracks.iteration import iter_frames
from metered_sync.media.tracks.pcm import PcmReader
from metered_sync.media.tracks.stream import MediaStream
from metered_sync.media.tracks.track import RemoteTrack

__all__ = [
    "FrameCallback",
    "FrameQueue",
    "MediaStream",
    "PcmReader",
    "RemoteTrack",
    "VideoCapture",
    "iter_frames",
]
