"""Media for code that blocks: sources, tracks, recordings and previews.

============ ===========================================================================
sources      files, cameras, microphones, screens, and what a program makes itself
tracks       tracks that arrive, and the ways to read their frames
recording    tracks into a file
notebook     live previews in a notebook
pixels       pictures as arrays
resampling   sound as samples of one rate
snapshot     single pictures: to look at, to keep, to send
file_objects open files, uploads and memory, as FFmpeg reads and writes them
opening      open files and devices within a deadline
pyav         PyAV's versions and errors: what differs is known here alone
============ ===========================================================================

All of it needs the extra ``webrtc``. Nothing here is asynchronous: what has to run on the loop
is in :mod:`metered_sync.engine`.
"""
