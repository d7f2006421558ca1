"""Parse and build what the protocols send: pure functions and frozen values.

============= =========================================================================
frames        the JSON frames of Realtime Messaging
events        the events that frames, rooms and the SFU become
signals       what members of a room send each other to set up their media
sdp           session descriptions
control       the bodies of the control plane's calls
sfu           the bodies of the SFU's calls
turn          the bodies of the TURN service's calls
bodies        read decoded JSON field by field
names         channels, peers, and the patterns that keys and tokens grant
tokens        signed claims
secrets       check keys and secrets by their form; cut them out of what is shown
urls          origins, and the address that a connection is made to
limits        the service's limits and close codes
timings       every interval of the protocols
data_channels what a data channel can be, and what it can carry
key_frames    recognise key frames, and where pictures start, in RTP payloads
websocket     the frames that carry text messages
============= =========================================================================

Nothing here opens a socket, reads a clock or starts a thread. The client's
engine and the local cloud both build on these modules, so the two sides
cannot drift apart.
"""
