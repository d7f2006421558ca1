"""The engine: everything asynchronous, on one background thread.

============ ==========================================================================
rooms        the members of a channel, and a media connection to each
sfu_rooms    the media of such a room, where they go through the SFU
sfu          a session with the SFU, and the next one when it is lost
sending      local tracks on their way to senders
messaging    the connection to the messaging service
webrtc       what rooms and the SFU need of aiortc
rest         one REST call, and one family of errors
http         one HTTP call, on daemon threads of our own
http_session the sessions of ``requests`` for it, which nobody has patched
network      proxies and certificate authorities, for messaging and REST alike
logs         loggers whose records have no secrets
============ ==========================================================================

It knows asyncio, ``websockets`` and ``aiortc``; it never calls user code and never blocks.
``rooms`` and ``sfu`` stand on ``sending``, ``messaging``, ``webrtc`` and ``rest``, never on
each other; ``sfu_rooms`` stands on both. The floors above reach it through
:mod:`metered_sync.bridge.loop`.
"""
