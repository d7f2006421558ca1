"""Rooms on the engine: the members of one channel, and a media connection to each.

================ ============================================================================
link             the room: joining one channel, following its life, leaving
roster           who is there: presence, lists of members, messages that come early
member           one other member, and what happens on the connection to it
error_throttle   tell of the errors that a member causes at a bounded rate
our_tracks       the tracks that are sent, and what members have been told about them
room_channel     the channel that the room is: subscribed to, and published to
direct_messages  send direct messages to members; whether that is permitted
connection       carry a negotiation out: the media connection to one member
negotiation      decide when to offer, answer, repeat, begin anew and give up: without I/O
media            the seam: all that room and face know of a member's media
mesh             make media as a mesh: a connection to each member
generation       one peer connection to a member
opening_channels the data channels that are being opened, and may be refused
sections         the media sections of a connection, and which of our tracks each carries
slot             one of these sections, and the track that is sent in it
received_tracks  the tracks that a member sends, over all generations
track_metadata   match the metadata that a member announced with the tracks that arrive
signal_queue     the signals of one member, on their way to its connection
sdp_pins         keep section numbers and payload types where the other side knows them
================ ============================================================================

The door is :class:`~metered_sync.engine.rooms.link.RoomLink`.
"""
