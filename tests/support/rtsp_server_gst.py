"""An RTSP server on loopback: the system's Python runs this, with GStreamer's bindings.

``python3 rtsp_server_gst.py PORT [USER PASSWORD]`` prints a line once it listens. Each client
gets a live pipeline of its own, at ``/both``, ``/video``, ``/audio``, ``/last-of-six`` (channels,
the others are silent) and ``/multicast``; at ``/opus`` with other sound, at ``/bframes`` with
pictures in another order. ``CAMERA_SIZE`` is the size of pictures.
"""

import os
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

WIDTH, HEIGHT = os.environ.get("CAMERA_SIZE", "160x120").split("x")
PICTURES = (
    "videotestsrc is-live=true pattern=solid-color foreground-color=0xffff0000"
    f" ! video/x-raw,format=I420,width={WIDTH},height={HEIGHT},framerate=10/1"
)
PAYLOAD = " ! rtph264pay config-interval=1 pt=96 name=pay0 "
VIDEO = (
    PICTURES
    + " ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=5 bitrate=100"
    + PAYLOAD
)
REORDERED = (
    PICTURES
    + " ! x264enc bframes=2 b-adapt=false rc-lookahead=2 key-int-max=10 ! video/x-h264,profile=main"
    + PAYLOAD
)
AUDIO = (
    "audiotestsrc is-live=true freq=500 samplesperbuffer=160"
    " ! audio/x-raw,rate=8000,channels=1 ! mulawenc ! rtppcmupay pt=0 name=pay{} "
)
LAST_OF_SIX = (
    "audiotestsrc is-live=true freq=500 samplesperbuffer=480 ! audio/x-raw,rate=48000,channels=1"
    ' ! audioconvert mix-matrix="<<0.0>,<0.0>,<0.0>,<0.0>,<0.0>,<1.0>>"'
    " ! audio/x-raw,channels=6,channel-mask=(bitmask)0x3f ! audioconvert"
    " ! rtpL16pay pt=97 name=pay0 "
)
OPUS = (
    "audiotestsrc is-live=true freq=500 samplesperbuffer=960 ! audio/x-raw,rate=48000,channels=2"
    " ! opusenc ! rtpopuspay pt=97 name=pay1 "
)
PATHS = {
    "/both": VIDEO + AUDIO.format(1),
    "/video": VIDEO,
    "/audio": AUDIO.format(0),
    "/last-of-six": LAST_OF_SIX,
    "/multicast": VIDEO,
    "/opus": VIDEO + OPUS,
    "/bframes": REORDERED,
}


def main() -> None:
    """Serve until ended."""
    port, *login = sys.argv[1:]
    Gst.init(None)
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=port)
    for path, pipeline in PATHS.items():
        factory = GstRtspServer.RTSPMediaFactory(launch=f"( {pipeline})")
        if path == "/multicast":
            pool = GstRtspServer.RTSPAddressPool()
            pool.add_range("239.255.12.42", "239.255.12.42", 15000, 15010, 1)
            factory.set_address_pool(pool)
            factory.set_protocols(GstRtsp.RTSPLowerTrans.UDP_MCAST)
            factory.set_shared(True)
        if login:
            role = GstRtspServer.RTSPToken()
            role.set_string("media.factory.role", "viewer")
            auth = GstRtspServer.RTSPAuth()
            auth.add_basic(GstRtspServer.RTSPAuth.make_basic(*login), role)
            server.set_auth(auth)
            access = GstRtspServer.RTSPPermissions()
            access.add_permission_for_role("viewer", "media.factory.access", True)
            access.add_permission_for_role("viewer", "media.factory.construct", True)
            factory.set_permissions(access)
        server.get_mount_points().add_factory(path, factory)
    if server.attach(None) == 0:
        sys.exit(f"port {port} is taken")
    print("listening", flush=True)
    GLib.MainLoop().run()


main()
