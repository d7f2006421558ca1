"""Tracks that arrive, and the ways to read their frames.

============= =========================================================================
track         a track that a peer or the SFU sends
core          what a track and its readers share
frame_queue   its frames, for one reader
callbacks     functions that are called with its frames
capture       a track as OpenCV's ``VideoCapture``
pcm           sound as arrays of samples, in pieces of one length
iteration     any track's frames, one after the other
stream        a named group of tracks
shared_frames which of FFmpeg's objects several readers may share
============= =========================================================================

Frames arrive from :mod:`metered_sync.engine.webrtc`; whatever converts them runs on the
reader's thread.
"""
