"""The engine: everything asynchronous, on one background thread.

It knows asyncio, ``websockets`` and ``aiortc``; it never calls user code and
never blocks. The floors above see it through :mod:`metered_sync.bridge.loop`.
"""
