"""Live previews of tracks in a notebook.

======= ===============================================================================
preview show a track in a cell's output, on a thread of its own
views   render a track's frames: pictures, or a level meter
output  update one output of a cell in place
======= ===============================================================================
"""

from metered_sync.media.notebook.preview import Preview

__all__ = ["Preview"]
