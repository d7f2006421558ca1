"""Parse and build what the protocols send: pure functions and frozen values.

=================== ======================================================================
frames              the JSON frames of Realtime Messaging
events              the events of a connection to the messaging service
media_events        the events of rooms, data channels and sources
signals             the signals with which members of a room set up their media
sdp                 session descriptions: the text of offers and answers
session_description an offer or an answer, in the objects that carry it
control             the bodies of the control plane's calls
sfu                 the bodies of the SFU's calls
turn                the bodies of the TURN service's calls, and lists of ICE servers
fields              read decoded JSON field by field; copy it
arguments           check the arguments of public calls
json_codec          encode and decode JSON text
names               channels, peers, and the patterns that keys and tokens grant
tokens              signed claims
secrets             check keys and secrets by their form; cut them out of what is shown
urls                origins, and the address that a connection is made to
states              the values that ``state`` has
limits              the service's limits, and the codes of refusals and closes
timings             every interval of the protocols
data_channels       the options and the messages of data channels
key_frames          recognise key frames, where pictures start, and how large they are
websocket           the frames that carry text messages
=================== ======================================================================

Nothing here opens a socket, reads a clock or starts a thread. The client's
engine and the local cloud both build on these modules, so the two sides
cannot drift apart.
"""
