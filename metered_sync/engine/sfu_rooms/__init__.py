"""Rooms whose media go through the SFU: a second way to exchange the media of a room's members.

============ =============================================================================
messages     parse and build the messages by which members tell of their tracks
room_media   the media of one room: two sessions at most
our_state    this peer's state: what it sends, and whether it speaks; telling the others
member_media one member's part: its announced tracks, and data channels on demand
publishing   publish our tracks, and say which of them flow
receiving    make what is received what is wanted
room_track   one announced track, which knows whether somebody reads it
speakers     who speaks, as members say and as their sound is measured
============ =============================================================================

The door is :class:`~metered_sync.engine.sfu_rooms.room_media.SfuRoomMedia`. The convention is
docs/protocol/rooms-sfu.md.
"""
