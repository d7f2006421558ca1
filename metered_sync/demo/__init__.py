"""The demo: a clip goes through an SFU from one process to another.

========= =============================================================================
publisher publish a clip, as a user would write it
viewer    watch it in another process, as a user would write it
stage     start the local cloud and the publisher, run the viewer, show the result
========= =============================================================================

The first two run against the real services unchanged.
"""
