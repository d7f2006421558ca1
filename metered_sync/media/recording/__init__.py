"""Recording: tracks into a media file.

========= =============================================================================
recorder  what a user calls: add tracks, start, stop
recording a recording under way, on a thread of its own
inputs    tracks on their way in: frames taken, held until they are placed, passed on
alignment put tracks that each count time in their own way on one clock
muxing    formats, encoders, the file itself
========= =============================================================================
"""
