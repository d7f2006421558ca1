"""Use aiortc: the parts of WebRTC that rooms and the SFU have in common.

================== =====================================================================
peer_connection    making a peer connection, gathering, waiting for it, closing it
incoming           the frames of a received track, for those who read it
media_frames       frames of sound and pictures: their rates, their shapes, copies
pictures           the one shape that pictures are encoded in: range, colours, direction, pixels
filters            FFmpeg's filters, run on frames
relay              a received track, to be sent on
jitter             packets to whole frames, released sooner than aiortc does
encoded_frames     what arrived, for readers that take it as it is encoded
appearance         what packets say of how pictures are to be shown, brought to the pictures
header_extensions  agreeing on the header extensions that say so
picture_extensions reading them
encoding           how a track is encoded: bit rate, frame rate, codec
stream_formats     how media that is encoded already is described
data_channel       data channels: a bounded buffer out, a bounded inbox in
send_buffer        the buffer of a channel's messages on their way out
ice                which STUN and TURN servers are used, and the path that was found
sdp_repair         make foreign descriptions fit for aiortc, and ours fit for the others
stats              what was sent and received, counted
steady_clock       the clock that aiortc goes by
aiortc_private     all private names of aiortc and aioice, and what is lost without them
================== =====================================================================

What lives here knows one peer connection and nothing of who is at its other end: no rooms, no
SFU, no signalling.
"""
