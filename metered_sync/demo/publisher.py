"""Publish a clip, picture and sound, until the viewer has seen enough.

Keys and addresses come from the environment (METERED_KEY, METERED_SFU_APP_ID, …).
"""

from __future__ import annotations

import time
from pathlib import Path

from metered_sync import MeteredTimeoutError, SfuClient, SignallingClient, from_file

CLIP = Path(__file__).parent / "bunny.mp4"
VIEWER_TIMEOUT = 60.0
"""Seconds without a message from the viewer after which the publisher ends."""


def main() -> None:
    """Publish until the viewer says "enough", or nothing for a minute."""
    with SignallingClient() as client, SfuClient() as sfu, from_file(CLIP, loop=True) as clip:
        viewer = client.subscribe("demo/viewer")
        sfu.publish(clip, name="bunny")
        word, heard = None, time.monotonic()
        while word != "enough" and time.monotonic() - heard < VIEWER_TIMEOUT:
            client.publish("demo/publisher", {"session": sfu.session_id, "sent": clip.frames_sent})
            try:
                word, heard = viewer.get(timeout=0.5).data, time.monotonic()
            except MeteredTimeoutError:
                pass
        client.publish("demo/publisher", {"sent": clip.frames_sent, "last": True})


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
