"""A notebook, or a script with pictures and sound, of a user who annotates everything."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import numpy.typing as npt
from aiortc.mediastreams import MediaStreamTrack

from metered_sync import (
    AudioSource,
    Data,
    DataChannel,
    DataChannelOpened,
    DataChannelState,
    DCMessage,
    FrameQueue,
    MediaStream,
    MeteredPeer,
    MeteredPeerState,
    PcmReader,
    PeerConnectionState,
    PeerJoined,
    Publication,
    Recorder,
    RecordingInfo,
    RemotePeer,
    RemoteTrack,
    Republished,
    SessionInfo,
    SfuClient,
    SfuClientState,
    Snapshot,
    Track,
    TrackEnded,
    TrackInfo,
    VideoSource,
    from_camera,
    from_file,
    from_microphone,
    from_rtsp,
    iter_frames,
    screen_share,
)
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource, dominant_frequency, read_number

Pictures = npt.NDArray[np.uint8]
Sound = npt.NDArray[np.int16]


def send(peer: MeteredPeer) -> None:
    """Give every kind of track to a room."""
    with (
        VideoSource(640, 480, fps=25) as screen,
        AudioSource(input_rate=22050) as voice,
        PatternSource() as pattern,
        from_file("clip.mp4", loop=True) as clip,
    ):
        peer.add_track(screen.video, metadata={"role": "screen"})
        peer.add_track(voice, MediaStream(id="agent"), {"role": "agent"})
        peer.add_track(clip.video)  # an error says so if the clip has no pictures
        peer.add_track(from_camera(0).video, video_bitrate=500_000, max_framerate=15)
        peer.add_track(from_microphone().audio, codec="opus")
        peer.add_track(screen_share().video)
        peer.add_stream(MediaStream(clip.tracks, id="film"), {"role": "film"})
        peer.add_stream(MediaStream([pattern.video, ToneSource().audio], id="test"))
        peer.add_stream(MediaStream(from_rtsp("rtsp://camera/1")))
        peer.replace_track(screen.video, pattern.video)
        peer.remove_track(voice.audio)

        peer.add_track(voice, MediaStream(id="agent-voice"))  # a source with one track is one
        peer.replace_track(voice, ToneSource())
        peer.remove_track(screen)
        peer.add_stream(MediaStream([screen, voice], id="both"))
        for frame in iter_frames(pattern):
            print(frame.pts)
        print(peer.get_track_metadata(voice), peer.get_stream_metadata(MediaStream(id="both")))

        screen.write(np.zeros((480, 640, 3), np.uint8))
        voice.push(np.zeros(320, np.int16), timeout=1)
        voice.push(b"\0\0")
        track: MediaStreamTrack = screen.video
        if clip.audio is not None:
            print(clip.audio.kind, track.kind, clip.duration, clip.position)
        clip.seek(1)


def receive(remote: RemotePeer) -> Pictures:
    """Read a member's tracks in every way."""
    video = remote.track("video", metadata={"role": "camera"}, timeout=10)
    audio = remote.track("audio", where=lambda track: track.stream_id == "agent")
    for kind in ("audio", "video"):
        print(remote.track(kind).name)

    images: list[Pictures] = []
    for frame in video.frames():
        images.append(np.asarray(frame.to_ndarray(format="bgr24"), np.uint8))
        width: int = frame.width
        print(width, frame.time)
    for piece in audio.frames(maxsize=100):
        samples: int = piece.samples
        print(samples)
    with video.frames(mode="fifo") as queue:
        print(queue.get(timeout=1).height, queue.dropped, queue.age)

    image: Pictures = video.read(timeout=5)
    grey: Pictures = video.read(format="gray")
    deep: npt.NDArray[Any] = video.read(5, "gray16le")
    print(image.shape, grey.dtype, deep.mean(), read_number(image))

    with audio.pcm(rate=16000, chunk=0.1) as sound:
        print(dominant_frequency(next(sound), 16000), power(sound))
        for chunk in sound:
            exact: Sound = chunk
            print(exact.sum())

    capture = video.capture(timeout=3)
    while capture.isOpened():
        ok, picture = capture.read()
        if not ok:
            break
        images.append(picture)
        print(picture.shape)
    capture.release()

    @video.on_frame
    def show(frame: av.VideoFrame) -> None:
        print(frame.width)

    audio.on_frame(lambda frame: print(frame.pts))
    print(show.dropped)
    shot: Snapshot = video.snapshot(timeout=3)
    shot.save("shot.jpg")
    images.append(shot.array)
    display(video)
    display(audio)
    return images[0]


def power(sound: PcmReader) -> float:
    return float(np.mean(np.square(sound.get(timeout=1), dtype=np.float64)))


def display(track: RemoteTrack) -> None:
    """Work with a track of either kind."""
    if track.kind == "video":
        track.display(fps=10).stop()
    for frame in track.frames():
        if isinstance(frame, av.VideoFrame):
            print(frame.width, frame.to_ndarray(format="rgb24").shape)
        else:
            print(frame.samples, frame.layout)
    for again in iter_frames(track, timeout=5):
        print(again.pts, again.time_base)
    print(drained(track.frames()), track.stats()["bitrate"], track.metadata, track.restarts)


def drained(frames: FrameQueue) -> int:
    return sum(frame.pts is not None for frame in frames)


def pictures_only(track: RemoteTrack[av.VideoFrame]) -> int:
    return track.frames().get().height


def room(cloud: LocalCloud) -> None:
    with MeteredPeer(**cloud.token_options("ann")) as peer, peer.joined("room") as same:
        send(same)

        @peer.on(PeerJoined)
        def came(joined: PeerJoined) -> None:
            joined.peer.on(Track, arrived)
            joined.peer.on(DataChannelOpened, lambda event: talk(event.channel))

        def arrived(event: Track) -> None:
            print(event.track.kind, [stream.id for stream in event.streams])

        @peer.on(Data)
        def said(data: Data) -> None:
            if data.kind == "broadcast":
                peer.send_to(data.sender_peer_id, "thanks")

        remote = peer.wait_for_peer(timeout=30)
        came(PeerJoined(remote))
        print(receive(remote).shape, pictures_only(remote.track("video")))
        states: tuple[MeteredPeerState, PeerConnectionState] = (peer.state, remote.state)
        print(states, [other.id for other in peer.remote_peers])
        with remote.create_data_channel("chat", max_retransmits=3) as channel:
            talk(channel)


class Agent(MeteredPeer):
    """A peer with a method of its own."""

    def greet(self) -> None:
        self.send("hello")


def work() -> None:
    with Agent(api_key="pk_live_key") as agent, agent.joined("room") as same:
        agent.greet()
        same.greet()


def talk(channel: DataChannel) -> None:
    channel.send("hello")
    channel.send(b"bytes", timeout=1)
    for message in channel:
        text = message.upper() if isinstance(message, str) else message.decode()
        print(text)
    channel.on(DCMessage, lambda event: print(len(event.data)))
    state: DataChannelState = channel.state
    print(state)


def sfu() -> None:
    with SfuClient(app_id="app", secret="secret") as client, from_file("clip.mp4") as clip:
        one: Publication = client.publish(clip.video, name="film", video_bitrate=1e6)
        screen: Publication = client.publish(VideoSource(320, 240).video)
        voice: Publication = client.publish(AudioSource(), name="voice")
        bridged: Publication = client.publish(client.subscribe(one))
        many: list[Publication] = client.publish(clip)
        several: list[Publication] = client.publish([clip.video, AudioSource().audio])
        cameras: list[Publication] = client.publish(from_camera())
        test: Publication = client.publish(PatternSource())
        with client.publish(ToneSource()) as tone:
            print(tone.name, test.mid)
        print(
            one.mid,
            screen.kind,
            voice.name,
            bridged.kind,
            len(many),
            several[0].name,
            cameras[0].track_id,
        )
        track: RemoteTrack = client.subscribe(one.session_id, one.track_id)
        tracks: list[RemoteTrack] = client.subscribe(client.tracks(one.session_id))
        found: TrackInfo = client.wait_for_track(name="film", kind="video", timeout=5)
        sessions: list[SessionInfo] = client.sessions()
        print(track.read().shape, len(tracks), found.name, sessions[0].metadata)
        for frame in client.subscribe(found).frames():
            assert isinstance(frame, av.VideoFrame)
            print(frame.to_ndarray(format="bgr24").shape)
        track.on(TrackEnded, lambda event: print(event.track.id))
        track.wait_ended(timeout=1)
        client.unsubscribe(track)
        bridged.close()
        again = client.wait_for(Republished).publication
        again.close()
        state: SfuClientState = client.state
        print(state, record(track, clip.audio))


def record(track: RemoteTrack, sound: MediaStreamTrack | None) -> float:
    def progress(info: RecordingInfo) -> None:
        print(info.duration)

    with Recorder("call.mp4", track, AudioSource(), on_progress=progress) as recorder:
        if sound is not None:
            recorder.add(sound)
    return recorder.stop().duration
