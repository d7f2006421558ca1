"""The commands, a module for each.

======= ===============================================================================
serve   run a local cloud until Ctrl-C
demo    publish a clip and watch it, through a local cloud
======= ===============================================================================
"""
