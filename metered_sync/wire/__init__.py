"""The wire: what the protocols say, as pure functions and frozen values.

Nothing here opens a socket, reads a clock or starts a thread. The client's
engine and the local cloud both build on these modules, so the two sides
cannot drift apart.
"""
