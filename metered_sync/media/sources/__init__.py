"""Sources: where the frames of local tracks come from.

=========== ===========================================================================
base        what all sources share: their tracks, and how they are stopped
files       media files, played in real time
demuxing    read a media file once, in the order of playing
live        what happens elsewhere and cannot be made to wait
rtsp        network cameras
devices     cameras, microphones and screens of this machine
video       pictures that a program makes
audio       sound that a program makes
sound_input turn whatever sound a program has into what is sent
=========== ===========================================================================

A source reads on a thread of its own and feeds :mod:`metered_sync.engine.sending`; what becomes
of its tracks (a room, the SFU, a recording) is not known here.
"""
