"""Bring an RTSP camera into a room: pictures, sound, telemetry, and commands back."""

import base64
import logging
import os
import signal
import sys
import threading
import time

from metered_sync import (
    Data,
    FatalError,
    MediaError,
    MediaStream,
    MeteredError,
    MeteredPeer,
    MeteredTimeoutError,
    SignallingClient,
    Snapshot,
    VideoSource,
    from_rtsp,
    iter_frames,
)

CAMERA_URL = os.environ["CAMERA_URL"]
ROOM = os.environ.get("ROOM", "cameras/door")
TELEMETRY = f"{ROOM}/telemetry"
INTERVAL = float(os.environ.get("TELEMETRY_SECONDS", "5"))
ENCODED = os.environ.get("ENCODED", "1") != "0"
OPERATORS = set(filter(None, os.environ.get("OPERATORS", "").split(",")))
LONGEST_PAUSE = 30  # seconds between two attempts

log = logging.getLogger("bridge")


def for_ever(what):
    """Call a function until it succeeds, after growing pauses; return its result."""
    pause = 1
    while True:
        began = time.monotonic()
        try:
            return what()
        except MeteredError as error:
            if time.monotonic() > began + LONGEST_PAUSE:  # it had worked for a while
                pause = 1
            log.warning("again in %d s: %s", pause, error)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


def connect():
    """Connect to the camera; its pictures as they are encoded, if that is possible."""
    if ENCODED:
        try:
            camera = from_rtsp(CAMERA_URL, encoded=True)
            if camera.video is not None:
                return camera, True
        except MediaError as error:
            log.warning("its pictures are decoded, and encoded again: %s", error)
    return from_rtsp(CAMERA_URL), False


def sound_of(camera):
    """Return the tracks of a camera's sound, which is encoded here unless it is Opus."""
    try:
        return [camera.audio] if camera.audio else []
    except MediaError as error:
        log.info("its sound is encoded here: %s", error)
        return [from_rtsp(CAMERA_URL).audio]  # (nobody takes the pictures of this one)


class Bridge:
    """A camera, and what the room is shown of it."""

    def __init__(self, camera, encoded):
        self.camera = camera
        self.encoded = encoded
        self.latest = None
        self.paused = False
        self.bitrate = None
        if encoded:  # neither a decoder nor an encoder
            video = camera.video
        else:
            self.screen = VideoSource(640, 480)  # (it takes pictures of any size)
            video = self.screen.video
            threading.Thread(target=self.pump, daemon=True).start()
        self.stream = MediaStream([video, *sound_of(camera)], id="camera")

    def pump(self):
        """Pass the pictures on. Here they could be looked at, or drawn into."""
        for frame in iter_frames(self.camera.video):
            self.latest = frame
            self.screen.write(frame)

    def run(self):
        """Be in the room until it has ended for good."""
        with SignallingClient() as telemetry, MeteredPeer() as peer:
            self.show(peer)
            with peer.events(Data, FatalError) as inbox:
                peer.join(ROOM)
                log.info("in the room %s as %s", ROOM, peer.peer_id)
                due = time.monotonic()
                while True:
                    try:
                        event = inbox.get(timeout=max(0, due - time.monotonic()))
                    except MeteredTimeoutError:
                        self.report(telemetry, peer)
                        due = time.monotonic() + INTERVAL
                        continue
                    if isinstance(event, FatalError):
                        raise event.err
                    if event.kind == "direct":
                        self.obey(peer, event)

    def show(self, peer):
        """Send the stream, unless it is paused."""
        if not self.paused:
            peer.add_stream(self.stream, {"role": "camera"}, video_bitrate=self.bitrate)

    def report(self, telemetry, peer):
        """Publish how things are. A report that cannot leave now is not worth keeping."""
        try:
            telemetry.publish(
                TELEMETRY,
                {
                    "peer": peer.peer_id,
                    "camera": self.camera.state,
                    "restarts": self.camera.restarts,
                    "seconds": round(self.camera.position, 1),
                    "members": len(peer.remote_peers),
                    "paused": self.paused,
                    "bitrate": self.bitrate,
                },
                during_outage="fail",
            )
        except MeteredError as error:
            if telemetry.state == "closed":  # for good: begin anew
                raise
            log.info("no telemetry: %s", error)

    def obey(self, peer, event):
        """Carry out a command, and answer."""
        command = event.data.get("command") if isinstance(event.data, dict) else None
        try:
            answer = {"done": command, **self.carry_out(peer, command, event)}
        except (ValueError, PermissionError, MeteredError) as error:
            answer = {"failed": command, "why": str(error)}
        log.info("%.40r from %s: %s", command, event.sender_peer_id, answer.get("why", "done"))
        try:
            peer.send_to(event.sender_peer_id, answer)
        except MeteredError as error:
            log.info("no answer: %s", error)

    def carry_out(self, peer, command, event):
        """Return what to answer besides."""
        if OPERATORS and event.sender_peer_id not in OPERATORS:
            raise PermissionError("you are no operator of this camera")
        if command == "snapshot":
            # (A message has 64 KiB at most.)
            picture = Snapshot(self.look()).to_jpeg(width=480, quality=70)
            return {"jpeg": base64.b64encode(picture).decode()}
        if command in ("pause", "resume"):
            self.paused = command == "pause"
        elif command == "bitrate":
            if self.encoded:
                raise ValueError("pictures are sent as they are: set the bit rate in the camera")
            bitrate = event.data.get("value")
            if not isinstance(bitrate, int) or not 50_000 <= bitrate <= 10_000_000:
                raise ValueError("value must be 50,000 to 10,000,000 bits per second")
            self.bitrate = bitrate
        else:
            raise ValueError("commands are snapshot, pause, resume and bitrate")
        peer.remove_stream(self.stream)
        self.show(peer)
        return {}

    def look(self):
        """Return a picture: the newest, or one that is decoded for this."""
        if self.encoded:
            with from_rtsp(CAMERA_URL) as camera:
                return next(iter_frames(camera.video, timeout=10))
        if self.latest is None:
            raise ValueError("no picture has come yet")
        return self.latest


def main():
    """Run until SIGTERM or Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # closes what is open, on the way out
    camera, encoded = for_ever(connect)
    if camera.video is None:
        sys.exit("the camera sends no pictures")
    with camera:
        log.info("connected to the camera: %s", camera)
        bridge = for_ever(lambda: Bridge(camera, encoded))
        for_ever(bridge.run)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
