"""Mistakes with pictures and sound: a type checker reports each line that is marked as wrong."""

from __future__ import annotations

import av
import numpy as np
import numpy.typing as npt

import metered_sync.testing
from metered_sync import (
    AudioSource,
    Data,
    DCMessage,
    MediaStream,
    MeteredPeer,
    Publication,
    Recorder,
    RemoteTrack,
    SfuClient,
    Track,
    VideoSource,
    from_camera,
    from_file,
)
from metered_sync.testing import PatternSource

peer = MeteredPeer(api_key="pk_live_key", relay_only=True)
print(SfuClient(app_id="app", secrets="secret"))  # wrong
sfu = SfuClient(app_id="app", secret="secret")
remote = peer.wait_for_peer()
track: RemoteTrack = remote.track()
video = remote.track("video")
audio = remote.track("audio")
print(from_file("clip.mp4", loops=True))  # wrong
clip = from_file("clip.mp4")
print(VideoSource(640))  # wrong
screen = VideoSource(640, 480)
print(AudioSource(rate=16000))  # wrong
voice = AudioSource()

print(metered_sync.testing.TestSource)  # wrong

# --- frames and samples
for frame in track.frames():
    print(frame.width)  # wrong
    print(frame.samples)  # wrong
for picture in video.frames():
    print(picture.samples)  # wrong
for sound in audio.frames():
    print(sound.to_ndarray(format="bgr24"))  # wrong
for chunk in audio.pcm():
    wide: npt.NDArray[np.float32] = chunk  # wrong
    print(chunk.to_ndarray())  # wrong
print(video.read("rgb24"))  # wrong
floats: npt.NDArray[np.float32] = video.read()  # wrong
pixels: npt.NDArray[np.uint16] = video.capture().read()[0]  # wrong
image: npt.NDArray[np.int32] = video.snapshot().array  # wrong
video.frames(mode="newest")  # wrong
audio.pcm(layout="5.1")  # wrong
print(audio.pcm(16000))  # wrong
print(video.kind == "vidio")  # wrong
with video.frames() as frames:
    print(frames.get(timeout="1"))  # wrong
    print(frames.get().frame)  # wrong


@video.on_frame  # wrong
def without_a_frame() -> None: ...


@video.on_frame  # wrong
def with_an_array(frame: npt.NDArray[np.uint8]) -> None: ...


def pictures_only(track: RemoteTrack[av.VideoFrame]) -> None:
    print(track.frames().get().samples)  # wrong


pictures_only(audio)  # wrong

# --- rooms
peer.add_track("camera")  # wrong
peer.add_track(np.zeros(3))  # wrong
peer.add_track(screen.video, "stream")  # wrong
peer.add_track(screen.video, metadata="camera")  # wrong
peer.add_track(screen.video, video_bitrate="1M")  # wrong
peer.add_stream(screen.video)  # wrong
peer.remove_track("camera")  # wrong
peer.remove_stream(screen)  # wrong
peer.replace_track(screen.video, "other")  # wrong
print(clip.video.kind)  # wrong
print(screen.video.kind, screen.audio.kind)  # wrong
print(from_camera().audio.kind)  # wrong
print(PatternSource().audio.kind)  # wrong
MediaStream(42)  # wrong
MediaStream([screen.video, 42])  # wrong
MediaStream(id=42)  # wrong
remote.track(where=lambda track: track.codec)  # wrong
remote.track(metadata="camera")  # wrong
remote.on(Track, lambda event: print(event.kind))  # wrong
peer.on(Data, lambda data: print(data.kind == "everybody"))  # wrong
remote.create_data_channel("chat", ordered="no").send(1)  # wrong
remote.create_data_channel("chat").send({"text": "hello"})  # wrong
remote.create_data_channel("chat").get().decode()  # wrong
remote.create_data_channel("chat").on(DCMessage, lambda event: print(event.text))  # wrong
print(remote.state == "joined", peer.state == "joined")  # wrong
print(peer.remote_peers[0].track("video").frame())  # wrong

# --- the SFU and recordings
one: Publication = sfu.publish(clip)  # wrong
many: list[Publication] = sfu.publish(screen.video)  # wrong
sfu.publish("clip.mp4")  # wrong
sfu.publish(screen.video, nam="screen")  # wrong
sfu.publish([screen.video, "clip.mp4"])  # wrong
sfu.publish(clip).close()  # wrong
sfu.subscribe(42)  # wrong
sfu.subscribe(sfu.tracks("session")).read()  # wrong
sfu.wait_for_track(kind=1)  # wrong
sfu.unsubscribe("track")  # wrong
screen.write([[0, 0, 0]])  # wrong
voice.push([0, 0, 0])  # wrong
voice.push("hello")  # wrong
Recorder("call.mp4", 42)  # wrong
Recorder("call.mp4").stop().seconds  # wrong
Recorder("call.mp4", on_progress=lambda info: print(info.size))  # wrong
