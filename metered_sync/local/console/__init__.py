"""Show a local cloud in a browser: who is connected, what goes over the wire, what was refused.

======= ===============================================================================
server  the routes: pages and files, the stream of patches, what pages ask for
guard   who may ask: the token, ``Host`` and ``Origin``; what a page may load
patches a snapshot first, then what changed, at most ten times a second
state   who is connected, which channels, rooms and SFU sessions there are
journal what went over the wire, and what was refused and why
rooms   which channels are rooms, by what their members say
media   codec, size, bit rate and loss of the SFU's tracks
actions what a page may have done: disconnect a peer, inject a fault
join    the page in which a browser joins a room, and what it needs for that
files   what a browser gets: pages, modules, style sheets
======= ===============================================================================

While no page is open, there is no task here and nothing becomes JSON; what is refused is taken
down all the same, since that is what a page is opened for.

``static/`` has what the browser gets: a page, a module and a style sheet for each surface, and one
style sheet for all, ``base.css``. They are written by hand, need no build step, and load nothing
from elsewhere.
"""

from metered_sync.local.console.join import JoinPage, check_name
from metered_sync.local.console.server import Console

__all__ = ["Console", "JoinPage", "check_name"]
