"""Reach what aiortc and aioice keep to themselves: every private name of theirs is in this folder.

They are made for peers that are written with them, and a room needs more: see
``docs/architecture/aiortc.md``. Versions that were tried: aiortc 1.14 to 1.16, aioice 0.10 to 0.13.

============ =======================================================================
names        names that several of these modules need
capabilities all that is used, looked for once; one warning about what a version lacks
trial        packets given to a receiver, to see that it works as is assumed here
sending      senders, their encoders and codecs; the tracks that they read
negotiation  sections and their names, what was agreed on, an offer taken back
starting     what is started once a description is set
paths        ICE and DTLS: gathering, the path in use, probes, relays
receiving    receivers: their packets, their decoders' threads
routing      which receiver the packets of a stream go to, once one has stopped
decoding     what stands in for a receiver's queue of frames, and decodes them
packet_path  a receiver's way from packets to its decoder
extensions   header extensions of packets that aiortc does not know
sctp         what is under data channels
============ =======================================================================

:func:`capabilities.capabilities` looks once, before the first use, for all that is used here. Where
a version lacks something, one line is logged that names it and tells what is lost by it; and the
functions of these modules do without. None of them fails for want of a name.

Everything here runs on the loop's thread.
"""
