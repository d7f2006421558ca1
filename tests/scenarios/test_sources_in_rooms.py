"""What a program pushes and writes, heard and seen by another member of a room."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metered_sync import AudioSource, ClosedError, MediaStream, MeteredPeer, VideoSource
from metered_sync.local import LocalCloud
from metered_sync.testing import dominant_frequency, read_number
from tests.media.sources.test_video import number
from tests.support.listening import tone


def test_sound_and_pictures_in_a_room(shared_cloud: LocalCloud) -> None:
    with (
        AudioSource() as voice,
        VideoSource(160, 120, fps=10) as screen,
        MeteredPeer(**shared_cloud.client_options()) as ann,
        MeteredPeer(**shared_cloud.client_options()) as bob,
    ):

        def show() -> None:
            try:
                for count in range(10**6):
                    screen.write(number(count, 160, 120))
            except ClosedError:
                pass

        ann.add_stream(MediaStream([voice.audio, screen.video], id="desk"))
        showing = threading.Thread(target=show)
        showing.start()
        # Bob is greeted before he is there: what is pushed waits for its first listener.
        voice.push(tone(700, 2))
        ann.join("writing")
        bob.join("writing")
        remote = bob.wait_for_peer(timeout=20)
        sound = remote.track("audio", timeout=20).frames()
        pictures = remote.track("video", timeout=20)

        def hear() -> NDArray[Any]:
            left: NDArray[Any] = sound.get(timeout=20).to_ndarray().reshape(-1, 2)[:, 0]
            return left

        while np.abs(hear()).max() < 4000:
            pass
        heard = np.concatenate([hear() for _ in range(25)])
        assert abs(dominant_frequency(heard, 48000) - 700) < 5
        numbers = [read_number(pictures.read(timeout=20)) for _ in range(5)]
        assert None not in numbers
        assert numbers == sorted(numbers)  # type: ignore[type-var]

        voice.push(tone(700, 4))
        while np.abs(hear()).max() < 4000:
            pass
        voice.clear()
        while np.abs(hear()).max() > 500:
            pass
        voice.push(tone(1500, 1))
        while np.abs(hear()).max() < 4000:
            pass
        heard = np.concatenate([hear() for _ in range(25)])
        assert abs(dominant_frequency(heard, 48000) - 1500) < 5

        bob.close()  # nobody listens any more, and time passes all the same
        voice.push(tone(700, 1))
        voice.wait_drained(timeout=20)
        screen.stop()
        showing.join(20)
        assert not showing.is_alive()
