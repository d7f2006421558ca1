"""Publish a clip, picture and sound, until the viewer has seen enough.

Keys and addresses come from the environment (METERED_KEY, METERED_SFU_APP_ID, …).
"""

from __future__ import annotations

from pathlib import Path

from metered_sync import MeteredTimeoutError, SfuClient, SignallingClient, from_file

CLIP = Path(__file__).parent / "bunny.mp4"


def main() -> None:
    """Publish until told to stop, and at most for five minutes."""
    with SignallingClient() as client, SfuClient() as sfu, from_file(CLIP, loop=True) as clip:
        viewer = client.subscribe("demo/viewer")
        sfu.publish(clip, name="bunny")
        for _ in range(5 * 60 * 4):
            client.publish("demo/publisher", {"session": sfu.session_id, "sent": clip.frames_sent})
            try:
                news = viewer.get(timeout=0.25)
            except MeteredTimeoutError:
                continue
            if news.data == "enough":
                break


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
