"""The demo: a clip goes through an SFU from one process to another.

``publisher.py`` and ``viewer.py`` are what a user would write, and run against the
real services unchanged. ``stage.py`` sets the stage: it starts the local cloud and
the publisher, and lets the viewer run.
"""
