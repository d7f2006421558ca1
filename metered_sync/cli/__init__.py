"""Run the command line, ``metered-sync``.

============ ==========================================================================
main         run the command line, or say what it needs
app          load the command that was named; errors become lines and exit statuses
connection   the options by which commands connect: ``@connection_options("messaging", …)``
dev_cloud    a local cloud with the keys of development, and how to find one that runs
arguments    check what commands are given: names, JSON, lines of standard input
token_report read a token as the service would
output       data to stdout, talk to stderr: lines, tables, JSON, progress
media        what the commands about media share
============ ==========================================================================

A command is a module in ``commands`` whose ``command`` is a :mod:`click` command, named in
``app.COMMANDS``. It returns its exit status (``None``: 0), and imports the library inside its
function, so that help and completion are quick. What a command does belongs to the library; here
it is only asked for, and shown.
"""

from metered_sync.cli.main import main

__all__ = ["main"]
