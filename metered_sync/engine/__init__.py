"""The engine: everything asynchronous, on one background thread.

============ ===================================================================
It knows asyncio, ``websockets`` and ``aiortc``; it never calls user code and never blocks.
``rooms`` and ``sfu`` stand on ``sending``, ``messaging``, ``webrtc`` and ``rest``, never on
each other; ``sfu_rooms`` stands on both. The floors above reach it through
:mod:`metered_sync.bridge.loop`.
"""
