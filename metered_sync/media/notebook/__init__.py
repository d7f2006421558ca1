"""Notebooks: live previews of tracks in the output of a cell.

======= ===============================================================================
preview a preview: which frames it shows, and when
views   what is drawn: a picture, or a level meter
output  the notebook output that a preview updates
======= ===============================================================================

``snapshot()`` needs none of this, and is :mod:`metered_sync.media.snapshot`.
"""
