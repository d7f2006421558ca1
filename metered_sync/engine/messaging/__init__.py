"""Messaging on the engine: one connection to the service, its requests and subscriptions.

============== =========================================================================
link           the connection over its whole life: connect, reconnect, close
options        the options of a connection, and the pauses before it is made again
handshake      one attempt: the token, the upgrade, the server's welcome
token_provider the user's function that returns tokens, asked on a worker thread
upgrade        the way to the socket: proxy, TLS, the answer to the upgrade
websocket      the socket: frames out, text messages in
request        one frame on its way out, and the wait for its acknowledgement
outbox         the requests: queued by any thread, written and settled by the loop
inbound        the server's frames: to their request, their channel, their event
subscriptions  the channels subscribed to: their readers, members and requests
roster_limits  bounds for what the list of a channel's members holds
keepalive      ping while nothing arrives; notice that the connection has died
replay         the subscriptions, asked for again after a reconnect
============== =========================================================================

The door is :class:`~metered_sync.engine.messaging.link.SignallingLink`. Nothing here knows of
WebRTC: rooms stand on this wing, and pub/sub works without the media packages.
"""
