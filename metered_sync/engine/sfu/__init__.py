"""Keep a client connected to the SFU, with its publications and subscriptions.

============ ============================================================================
link         a client's link to the SFU, over all its sessions
session      one session, negotiated over HTTP, from its making to its loss
connection   one session's peer connection: make offers and answers, take the SFU's
options      the options of sessions
tracks       the tracks that a client publishes and subscribes to, over all its sessions
publications what a client publishes, and publishing it again
watch        find out which subscribed tracks are gone, and where they are now
directory    find out who publishes what, with few requests
calls        the SFU's seven HTTP calls, to itself or to a gate
gate_tokens  the token that a gate is called with
============ ============================================================================

The door is :class:`~metered_sync.engine.sfu.link.SfuLink`. ``calls`` and ``directory`` need no
WebRTC, and serve installations without it: so this package imports nothing by itself.
"""
