"""Realtime messaging, WebRTC and SFU media for people who do not write asyncio.

Everything public is imported from here. Importing starts no thread, and loads
neither ``aiortc``, ``av`` nor ``numpy``: names that need them, or anything else that
is slow to load, are loaded on first use, and say what to install where it is missing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from metered_sync._version import __version__
from metered_sync.bridge.dispatch import EventQueue
from metered_sync.client import ReconnectOptions, SignallingClient, Subscription
from metered_sync.delivery import Delivery
from metered_sync.errors import (
    AckTimeoutError,
    CancelledError,
    ClosedError,
    ControlPlaneError,
    DataChannelOverflowError,
    DisconnectedError,
    EngineError,
    ForkedError,
    MediaError,
    MediaNotFoundError,
    MeteredError,
    MeteredPeerOversizedError,
    MeteredPeerReplaceTrackError,
    MeteredPeerSendError,
    MeteredPeerStateError,
    MeteredRealtimeError,
    MeteredTimeoutError,
    NegotiationFailedError,
    NotConnectedError,
    OversizedPayloadError,
    ReconcileTimeoutError,
    ReplaceTrackFailure,
    RestError,
    ServerRequestError,
    SfuAuthError,
    SfuConflictError,
    SfuError,
    SfuNotFoundError,
    SignallingConnectError,
    SignallingError,
    TurnError,
    WrongThreadError,
)
from metered_sync.events import (
    Connected,
    ConnectionReset,
    Data,
    DataChannelOpened,
    DCClose,
    DCError,
    DCMessage,
    DCOpen,
    Direct,
    Disconnected,
    Event,
    FatalError,
    GoingAway,
    IceCandidateError,
    IceServer,
    Joined,
    Left,
    Message,
    NegotiationError,
    Outage,
    PeerJoined,
    PeerLeft,
    Presence,
    PresencePeer,
    Republished,
    ServerError,
    StateChange,
    StreamAdded,
    StreamRemoved,
    TokenProviderError,
    Track,
)

if TYPE_CHECKING:
    from metered_sync.control import ControlPlane as ControlPlane
    from metered_sync.data_channel import DataChannel as DataChannel
    from metered_sync.media.notebook.preview import Preview as Preview
    from metered_sync.media.recording.recorder import Recorder as Recorder
    from metered_sync.media.recording.recording import RecordingInfo as RecordingInfo
    from metered_sync.media.snapshot import Snapshot as Snapshot
    from metered_sync.media.sources.audio import AudioSource as AudioSource
    from metered_sync.media.sources.devices import DeviceSource as DeviceSource
    from metered_sync.media.sources.devices import from_camera as from_camera
    from metered_sync.media.sources.devices import from_microphone as from_microphone
    from metered_sync.media.sources.devices import screen_share as screen_share
    from metered_sync.media.sources.files import FileSource as FileSource
    from metered_sync.media.sources.files import from_file as from_file
    from metered_sync.media.sources.rtsp import RtspSource as RtspSource
    from metered_sync.media.sources.rtsp import from_rtsp as from_rtsp
    from metered_sync.media.sources.video import VideoSource as VideoSource
    from metered_sync.media.tracks.callbacks import FrameCallback as FrameCallback
    from metered_sync.media.tracks.capture import VideoCapture as VideoCapture
    from metered_sync.media.tracks.iteration import iter_frames as iter_frames
    from metered_sync.media.tracks.pcm import PcmReader as PcmReader
    from metered_sync.media.tracks.stream import MediaStream as MediaStream
    from metered_sync.media.tracks.track import FrameQueue as FrameQueue
    from metered_sync.media.tracks.track import RemoteTrack as RemoteTrack
    from metered_sync.peer import MeteredPeer as MeteredPeer
    from metered_sync.remote_peer import RemotePeer as RemotePeer
    from metered_sync.sfu import Publication as Publication
    from metered_sync.sfu import SfuClient as SfuClient
    from metered_sync.sfu_api import SfuApi as SfuApi
    from metered_sync.tokens import mint_token as mint_token
    from metered_sync.turn import TurnApi as TurnApi
    from metered_sync.wire.control import Plan as Plan
    from metered_sync.wire.control import Token as Token
    from metered_sync.wire.control import Usage as Usage
    from metered_sync.wire.sfu import SessionInfo as SessionInfo
    from metered_sync.wire.sfu import TrackInfo as TrackInfo
    from metered_sync.wire.turn import TurnCredential as TurnCredential
    from metered_sync.wire.turn import TurnCredentialPage as TurnCredentialPage

# ``import *`` must work without the extras, so names that need them are not listed.
__all__ = [
    "AckTimeoutError",
    "CancelledError",
    "ClosedError",
    "Connected",
    "ConnectionReset",
    "ControlPlane",
    "ControlPlaneError",
    "DCClose",
    "DCError",
    "DCMessage",
    "DCOpen",
    "Data",
    "DataChannelOpened",
    "DataChannelOverflowError",
    "Delivery",
    "Direct",
    "Disconnected",
    "DisconnectedError",
    "EngineError",
    "Event",
    "EventQueue",
    "FatalError",
    "ForkedError",
    "GoingAway",
    "IceCandidateError",
    "IceServer",
    "Joined",
    "Left",
    "MediaError",
    "MediaNotFoundError",
    "Message",
    "MeteredError",
    "MeteredPeerOversizedError",
    "MeteredPeerReplaceTrackError",
    "MeteredPeerSendError",
    "MeteredPeerStateError",
    "MeteredRealtimeError",
    "MeteredTimeoutError",
    "NegotiationError",
    "NegotiationFailedError",
    "NotConnectedError",
    "Outage",
    "OversizedPayloadError",
    "PeerJoined",
    "PeerLeft",
    "Plan",
    "Presence",
    "PresencePeer",
    "ReconcileTimeoutError",
    "ReconnectOptions",
    "ReplaceTrackFailure",
    "Republished",
    "RestError",
    "ServerError",
    "ServerRequestError",
    "SfuApi",
    "SfuAuthError",
    "SfuConflictError",
    "SfuError",
    "SfuNotFoundError",
    "SignallingClient",
    "SignallingConnectError",
    "SignallingError",
    "StateChange",
    "StreamAdded",
    "StreamRemoved",
    "Subscription",
    "Token",
    "TokenProviderError",
    "Track",
    "TurnApi",
    "TurnCredential",
    "TurnCredentialPage",
    "TurnError",
    "Usage",
    "WrongThreadError",
    "__version__",
    "mint_token",
]

_ON_FIRST_USE = {
    "AudioSource": "metered_sync.media.sources.audio",
    "ControlPlane": "metered_sync.control",
    "DataChannel": "metered_sync.data_channel",
    "DeviceSource": "metered_sync.media.sources.devices",
    "FileSource": "metered_sync.media.sources.files",
    "FrameCallback": "metered_sync.media.tracks.callbacks",
    "FrameQueue": "metered_sync.media.tracks.track",
    "MediaStream": "metered_sync.media.tracks.stream",
    "MeteredPeer": "metered_sync.peer",
    "PcmReader": "metered_sync.media.tracks.pcm",
    "Plan": "metered_sync.wire.control",
    "Preview": "metered_sync.media.notebook.preview",
    "Publication": "metered_sync.sfu",
    "Recorder": "metered_sync.media.recording.recorder",
    "RecordingInfo": "metered_sync.media.recording.recording",
    "RemotePeer": "metered_sync.remote_peer",
    "RemoteTrack": "metered_sync.media.tracks.track",
    "RtspSource": "metered_sync.media.sources.rtsp",
    "SessionInfo": "metered_sync.wire.sfu",
    "SfuApi": "metered_sync.sfu_api",
    "SfuClient": "metered_sync.sfu",
    "Snapshot": "metered_sync.media.snapshot",
    "Token": "metered_sync.wire.control",
    "TrackInfo": "metered_sync.wire.sfu",
    "TurnApi": "metered_sync.turn",
    "TurnCredential": "metered_sync.wire.turn",
    "TurnCredentialPage": "metered_sync.wire.turn",
    "Usage": "metered_sync.wire.control",
    "VideoCapture": "metered_sync.media.tracks.capture",
    "VideoSource": "metered_sync.media.sources.video",
    "from_camera": "metered_sync.media.sources.devices",
    "from_file": "metered_sync.media.sources.files",
    "from_microphone": "metered_sync.media.sources.devices",
    "from_rtsp": "metered_sync.media.sources.rtsp",
    "iter_frames": "metered_sync.media.tracks.iteration",
    "mint_token": "metered_sync.tokens",
    "screen_share": "metered_sync.media.sources.devices",
}
_WEBRTC = ("aioice", "aiortc", "av", "numpy")


def __getattr__(name: str) -> Any:
    module = _ON_FIRST_USE.get(name)
    if module is None:
        raise AttributeError(f"module 'metered_sync' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in _WEBRTC:
            raise
        raise ImportError(
            f"{name} needs WebRTC ({error.name} is missing): "
            "run  pip install 'metered_sync[webrtc]'"
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_ON_FIRST_USE})
