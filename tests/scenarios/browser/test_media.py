"""A browser and `metered_sync` send each other pictures and sound."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest

from metered_sync import Recorder, RemoteTrack, SfuClient, from_file
from metered_sync.engine.webrtc import incoming
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource, dominant_frequency, read_number
from tests.conftest import ROOT, missing, wait_until
from tests.scenarios.browser.conftest import Tab
from tests.support.bad_network import bad_network

pytestmark = pytest.mark.browser
CLIP = ROOT / "metered_sync" / "demo" / "bunny.mp4"
JOIN = "pc.createDataChannel('idle'); await connect();"


def loudness(track: RemoteTrack, seconds: float) -> list[float]:
    """Return how loud each piece of sound is: root of the mean square, 1 is full scale."""
    values: list[float] = []
    with track.frames() as frames:
        total = 0.0
        while total < seconds:
            frame = frames.get(timeout=20)
            samples = frame.to_ndarray().astype(float) / 32768
            values.append(float(np.sqrt((samples**2).mean())))
            total += frame.samples / frame.sample_rate
    return values


def changing(track: RemoteTrack, count: int) -> tuple[int, int]:
    """Wait until the picture has changed so often; return its width and height."""
    deadline = time.monotonic() + 20
    last = track.read(timeout=20)
    while count:
        assert time.monotonic() < deadline, f"it does not change {count} times more"
        picture = track.read(timeout=20)
        count -= picture.shape != last.shape or (picture != last).mean() > 0.001
        last = picture
    return last.shape[1], last.shape[0]


def test_a_camera_and_a_microphone_in_a_browser(tab: Tab, sfu: SfuClient) -> None:
    video = tab.start(
        JOIN
        + """
        const track = await camera({video: {width: 640, height: 480}});
        track.contentHint = 'detail';  // not scaled down where the machine is busy
        await publish(track, 'desk');
        return publish(await camera({audio: true}), 'desk');
        """
    )
    tracks = [sfu.wait_for_track(name="desk", kind=kind, timeout=20) for kind in ("video", "audio")]
    picture, sound = sfu.subscribe(tracks)
    assert (picture.name, picture.kind, sound.kind) == ("desk", "video", "audio")
    assert changing(picture, 10) == (640, 480)
    # The fake microphone beeps twice a second, and is silent in between.
    values = loudness(sound, 2.5)
    assert max(values) > 0.01
    assert min(values) < max(values) / 5
    assert video.result(10)["sessionId"] == tracks[0].session_id


def test_a_clip_in_a_browser(tab: Tab, sfu: SfuClient) -> None:
    with from_file(CLIP, loop=True) as clip:
        sfu.publish(clip, name="bunny")
        frames, size, pictures = tab.run(
            JOIN
            + """
            const [video, audio] = await subscribe(
              [await find('bunny', 'video'), await find('bunny', 'audio')]);
            const frames = await decoded(video, 20);
            const pictures = [shown(video)];
            await decoded(video, 30);
            pictures.push(shown(video));
            await heard(audio, 0.003);
            const {videoWidth, videoHeight} = received[video];
            return [frames, [videoWidth, videoHeight], pictures];
            """
        )
    assert frames >= 20
    assert size == [1280, 720]
    first, second = np.array(pictures, float)
    assert first.std() > 5
    assert abs(first - second).mean() > 0.5


def test_pictures_and_sound_are_the_right_ones(tab: Tab, sfu: SfuClient) -> None:
    """The browser shows the numbers that were painted, and plays the tone."""
    with PatternSource(320, 240, 15) as pattern, ToneSource(1000) as tone:
        camera, mic = sfu.publish(pattern.video), sfu.publish(tone.audio)
        ids = [{"sessionId": p.session_id, "trackId": p.track_id} for p in (camera, mic)]
        mids = tab.run(JOIN + "return subscribe(ids)", ids=ids)
        numbers = []
        for _ in range(3):
            tab.run("return decoded(mids[0], 5)", mids=mids)
            picture = np.array(tab.run("return shown(mids[0])", mids=mids), np.uint8)
            numbers.append(read_number(picture.reshape(18, 32)))
        sound = tab.run("return heard(mids[1], 0.1)", mids=mids)
        assert dominant_frequency(np.array(sound["samples"]), sound["rate"]) == pytest.approx(
            1000, abs=20
        )
        seen = [number for number in numbers if number is not None]
        assert len(seen) >= 2
        assert seen == sorted(set(seen))
        assert seen[-1] <= pattern.position * 15 + 1


def test_both_send_and_receive_in_one_session_each(tab: Tab, sfu: SfuClient) -> None:
    """Negotiations of both sides overlap; what runs already is not disturbed by them."""
    first, second = PatternSource(320, 240, 15), PatternSource(160, 120, 15)
    with first, second, ToneSource(1000) as tone:
        tab.run(JOIN)

        def ours() -> list[RemoteTrack]:
            sfu.publish(first.video, name="ours")
            camera = sfu.subscribe(sfu.wait_for_track(name="theirs", kind="video", timeout=20))
            sfu.publish(tone.audio, name="ours")
            sound = sfu.subscribe(sfu.wait_for_track(name="theirs", kind="audio", timeout=20))
            return [camera, sound]

        theirs = tab.start("""
            const own = await publish(await camera(), 'theirs');
            const [video] = await subscribe([await find('ours', 'video')]);
            await publish(await camera({audio: true}), 'theirs');
            const [audio] = await subscribe([await find('ours', 'audio')]);
            return [video, audio];
        """)
        with ThreadPoolExecutor(1) as pool:
            picture, sound = pool.submit(ours).result(30)
        video, audio = theirs.result(30)
        assert picture.stream_id == sound.stream_id

        def all_run() -> None:
            checks = [
                tab.start("return decoded(mid, 15)", mid=video),
                tab.start("return heard(mid, 0.1)", mid=audio),
            ]
            seen = picture.frames_received, sound.frames_received
            wait_until(lambda: picture.frames_received >= seen[0] + 15, 20)
            wait_until(lambda: sound.frames_received >= seen[1] + 15, 20)
            for check in checks:
                check.result(30)

        all_run()
        # And a further round, on both sides at once, while all of it runs.
        more = tab.start("return publish(await camera(), 'also theirs')")
        sfu.publish(second.video, name="also ours")
        more.result(30)
        again = tab.start("return subscribe([await find('also ours', 'video')])")
        track = sfu.subscribe(sfu.wait_for_track(name="also theirs", kind="video", timeout=20))
        (mid,) = again.result(30)
        tab.run("return decoded(mid, 5)", mid=mid)
        track.read(timeout=20)
        all_run()


@pytest.mark.parametrize("codec", ["VP8", "H264"])
def test_codecs_from_a_browser(tab: Tab, sfu: SfuClient, tmp_path: Path, codec: str) -> None:
    """They are recorded as they come."""
    published = tab.run(
        JOIN
        + """
        const codecs = RTCRtpSender.getCapabilities('video').codecs
          .filter(item => item.mimeType === 'video/' + wanted);
        if (!codecs.length) return null;
        const track = await camera();
        const transceiver = pc.addTransceiver(track, {direction: 'sendonly'});
        transceiver.setCodecPreferences(codecs);
        return publishOn(transceiver, track, wanted);
        """,
        wanted=codec,
    )
    if published is None:
        missing(f"this Chromium has no encoder for {codec}")
    track = sfu.subscribe(published["sessionId"], published["trackId"])
    with Recorder(tmp_path / "camera.mkv", track) as recorder:
        wait_until(lambda: recorder.info.frames >= 5, 20)
        before = track.stats()["frames_decoded"]  # (a picture may have come before the recorder)
        wait_until(lambda: recorder.info.frames >= 15, 20)
    assert track.stats()["frames_decoded"] == before < 5
    assert [stream.codec for stream in recorder.info.streams] == [codec.lower()]
    with av.open(str(tmp_path / "camera.mkv")) as container:
        assert len(list(container.decode(video=0))) == recorder.info.frames
    width, height = changing(track, 10)
    assert width / height == pytest.approx(4 / 3, rel=0.02)
    assert tab.run("return codec(mid)", mid=published["mid"]) == f"video/{codec}"


@pytest.mark.parametrize("codec", ["VP8", "H264"])
def test_codecs_to_a_browser(tab: Tab, sfu: SfuClient, codec: str) -> None:
    with PatternSource(320, 240, 15) as pattern:
        camera = sfu.publish(pattern.video, codec=codec.lower())
        (mid,) = tab.run(
            JOIN + "return subscribe([track])",
            track={"sessionId": camera.session_id, "trackId": camera.track_id},
        )
        tab.run("return decoded(mid, 15)", mid=mid)
        assert tab.run("return codec(mid)", mid=mid) == f"video/{codec}"


def test_what_a_browser_sends_survives_a_bad_network(tab: Tab, shared_cloud: LocalCloud) -> None:
    """No picture of Chromium's is lost, or comes before another, with 3 % lost packets."""
    with (
        bad_network(fraction=0) as network,
        SfuClient(**shared_cloud.sfu_options()) as sfu,
    ):
        tab.start(JOIN + "return publish(await camera(), 'lossy')")
        track = sfu.subscribe(sfu.wait_for_track(name="lossy", timeout=20))
        with track.frames(mode="fifo", maxsize=5000) as frames:
            pts = [frames.get(timeout=20).pts]
            network.fraction = 0.03
            while len(pts) < 60:
                pts.append(frames.get(timeout=20).pts)
            assert network.faults > 3
        network.check(pts)


def test_pictures_of_a_browser_that_nobody_read(
    tab: Tab, sfu: SfuClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not decoded; who begins to read gets a new key frame."""
    monkeypatch.setattr(incoming, "UNREAD_DECODING", 0.3)
    tab.start(JOIN + "return publish(await camera(), 'unread')")
    track = sfu.subscribe(sfu.wait_for_track(name="unread", timeout=20))
    wait_until(lambda: track.frames_received > track.stats()["frames_decoded"] + 20, 20)
    asked = time.monotonic()
    assert track.read(timeout=20).std() > 5
    assert time.monotonic() - asked < 10
    before = track.stats()["frames_decoded"]
    wait_until(lambda: track.stats()["frames_decoded"] > before + 15, 20)
