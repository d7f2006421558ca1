"""Show a local cloud in a browser: who is connected, what goes over the wire, what was refused.

======= ===============================================================================
files   what a browser gets: pages, modules, style sheets
guard   who may ask: the token, ``Host`` and ``Origin``; what a page may load
join    the page in which a browser joins a room, and what it needs for that
server  the pages, and the routes of the console
======= ===============================================================================

``static/`` has what the browser gets: a page, a module and a style sheet for each surface. They
are written by hand, need no build step, and load nothing from elsewhere.
"""

from metered_sync.local.console.join import JoinPage, check_name
from metered_sync.local.console.server import Console

__all__ = ["Console", "JoinPage", "check_name"]
