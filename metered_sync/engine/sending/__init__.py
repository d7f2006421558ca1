"""Send a user's track or source to the senders of peer connections.

============== =========================================================================
local_track    a user's track as one room or one publication sends it
source_reader  read a user's track once, for all local tracks of it
rendition      a source's frames at one frame rate, as they are or encoded
outlet         the track that one sender sends, fed with frames or with encoded pictures
shared_encoder pictures encoded once for all senders that take the same codec
fanout         what is encoded already, for all outlets of a source
kept_group     the latest group of pictures, up to so many bytes and seconds
access_units   encoded pictures, whole, and in order: what can be sent as it is
packet_queue   queues of packets, which are dropped up to a key frame only
feed           frames from a source's thread to the loop: its clock, its queues
fed_track      such a queue as a track that the loop consumes
pushed         sound and pictures that callers push, made into frames when they are due
tee            the frames of a local track for one more reader
kept_loop      the event loop stays for tracks of other makers
timeline       timestamps for the frames of all local tracks, on one clock
============== =========================================================================

The door is :class:`~metered_sync.engine.sending.local_track.LocalTrack`. What lives here does not
know where the frames go: to a room's members, to the SFU, or into a recording.
"""
