"""The commands, a module for each.

======= ===============================================================================
serve   run a local cloud until Ctrl-C
publish publish a message, or a line of standard input each
listen  print messages as they come
peers   list who is in a channel
kick    disconnect a peer
usage   show the app's usage and its plan
token   make tokens, and explain them
doctor  find out what does not work from here, and what to do
demo    publish a clip and watch it, through a local cloud
turn    TURN servers, and credentials to use them with
sfu     media through the SFU: what is there, publish, record, snapshots
room    join a room, and show who is there and what comes
======= ===============================================================================
"""
