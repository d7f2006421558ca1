"""What the commands about media share; no command itself.

=========== ============================================================================
figures     show seconds, bytes and bit rates as text, and read a bit rate
publishing  open what is to be published: a file, a network camera, a test pattern
choosing    choose the tracks that a command line means
recording   record tracks to a file until they end, time is up, or Ctrl-C
room_watch  tell what happens in a room: members, tracks, messages
room_files  record what each member of a room sends, a file for each
=========== ============================================================================
"""
