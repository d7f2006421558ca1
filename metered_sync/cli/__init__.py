"""Run the command line, ``metered-sync``: a module for each command.

======= ===============================================================================
main    read the command line, and run the command that it names
command the type that commands add themselves to
serve   run a local cloud until Ctrl-C
demo    publish a clip and watch it, through a local cloud
======= ===============================================================================

A command is a module with ``add_to(commands)`` and ``run(options) -> int``. What a command does
belongs to the library; here it is only asked for, and shown.
"""

from metered_sync.cli.main import main

__all__ = ["main"]
