"""Messaging on the engine: one connection to the service, its requests and subscriptions.

============== =========================================================================
link           the connection over its whole life: connect, keep alive, reconnect, receive
handshake      one attempt: the token, the upgrade, the server's welcome
websocket      the socket: frames out, text messages in
outbox         requests on their way: queued by any thread, written and settled by the loop
subscriptions  the channels subscribed to: who reads them, who is in them
============== =========================================================================

The door is :class:`~metered_sync.engine.messaging.link.SignallingLink`. Nothing here knows of
WebRTC: rooms stand on this wing, and pub/sub works without the media packages.
"""
