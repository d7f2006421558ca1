"""Tracks that arrive, and the ways to read their frames.

============= =========================================================================
track         a track that a peer or the SFU sends
core          what a track and its readers share
frame_queue   queue a track's frames for one reader
callbacks     call functions with a track's frames
capture       read a track as OpenCV's ``VideoCapture``
pcm           cut sound into arrays of samples, all of one length
iteration     iterate over the frames of any track
stream        group tracks under a name
shared_frames share FFmpeg's objects between threads
============= =========================================================================

Frames arrive from :mod:`metered_sync.engine.webrtc`; whatever converts them runs on the
reader's thread.
"""
