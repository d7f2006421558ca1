"""Realtime messaging, WebRTC and SFU media for people who do not write asyncio.

Everything public is imported from here. Importing starts no thread and loads next to nothing:
each name is loaded on first use, and one that needs an extra which is missing says what to
install.
"""

from __future__ import annotations

import importlib
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any

from metered_sync._version import __version__ as __version__

if TYPE_CHECKING:  # the same names, for type checkers and editors
    from metered_sync.bridge.event_hub import EventQueue as EventQueue
    from metered_sync.bridge.reader import Overflow as Overflow
    from metered_sync.client import SignallingClient as SignallingClient
    from metered_sync.client import Subscription as Subscription
    from metered_sync.control import ControlPlane as ControlPlane
    from metered_sync.data_channel import DataChannel as DataChannel
    from metered_sync.delivery import Delivery as Delivery
    from metered_sync.errors import AckTimeoutError as AckTimeoutError
    from metered_sync.errors import CancelledError as CancelledError
    from metered_sync.errors import ClosedError as ClosedError
    from metered_sync.errors import ControlPlaneError as ControlPlaneError
    from metered_sync.errors import DataChannelOverflowError as DataChannelOverflowError
    from metered_sync.errors import DisconnectedError as DisconnectedError
    from metered_sync.errors import EngineError as EngineError
    from metered_sync.errors import ForkedError as ForkedError
    from metered_sync.errors import MediaError as MediaError
    from metered_sync.errors import MediaNotFoundError as MediaNotFoundError
    from metered_sync.errors import MeteredError as MeteredError
    from metered_sync.errors import MeteredPeerOversizedError as MeteredPeerOversizedError
    from metered_sync.errors import MeteredPeerReplaceTrackError as MeteredPeerReplaceTrackError
    from metered_sync.errors import MeteredPeerSendError as MeteredPeerSendError
    from metered_sync.errors import MeteredPeerStateError as MeteredPeerStateError
    from metered_sync.errors import MeteredRealtimeError as MeteredRealtimeError
    from metered_sync.errors import MeteredTimeoutError as MeteredTimeoutError
    from metered_sync.errors import NegotiationFailedError as NegotiationFailedError
    from metered_sync.errors import NotConnectedError as NotConnectedError
    from metered_sync.errors import OversizedPayloadError as OversizedPayloadError
    from metered_sync.errors import ReconcileTimeoutError as ReconcileTimeoutError
    from metered_sync.errors import ReplaceTrackFailure as ReplaceTrackFailure
    from metered_sync.errors import RestError as RestError
    from metered_sync.errors import ServerRequestError as ServerRequestError
    from metered_sync.errors import SfuAuthError as SfuAuthError
    from metered_sync.errors import SfuConflictError as SfuConflictError
    from metered_sync.errors import SfuError as SfuError
    from metered_sync.errors import SfuNotFoundError as SfuNotFoundError
    from metered_sync.errors import SignallingConnectError as SignallingConnectError
    from metered_sync.errors import SignallingError as SignallingError
    from metered_sync.errors import TurnError as TurnError
    from metered_sync.errors import WrongThreadError as WrongThreadError
    from metered_sync.events import DataChannelOpened as DataChannelOpened
    from metered_sync.events import PeerJoined as PeerJoined
    from metered_sync.events import PeerLeft as PeerLeft
    from metered_sync.events import Republished as Republished
    from metered_sync.events import StreamAdded as StreamAdded
    from metered_sync.events import StreamRemoved as StreamRemoved
    from metered_sync.events import Track as Track
    from metered_sync.events import TrackEnded as TrackEnded
    from metered_sync.gate import SfuGate as SfuGate
    from metered_sync.media.notebook.preview import Preview as Preview
    from metered_sync.media.recording.info import RecordingInfo as RecordingInfo
    from metered_sync.media.recording.recorder import Recorder as Recorder
    from metered_sync.media.snapshot import Snapshot as Snapshot
    from metered_sync.media.sources.audio import AudioSource as AudioSource
    from metered_sync.media.sources.devices import DeviceSource as DeviceSource
    from metered_sync.media.sources.devices import from_camera as from_camera
    from metered_sync.media.sources.devices import from_microphone as from_microphone
    from metered_sync.media.sources.devices import screen_share as screen_share
    from metered_sync.media.sources.encoded import EncodedSource as EncodedSource
    from metered_sync.media.sources.files import FileSource as FileSource
    from metered_sync.media.sources.files import from_file as from_file
    from metered_sync.media.sources.rtsp import RtspSource as RtspSource
    from metered_sync.media.sources.rtsp import from_rtsp as from_rtsp
    from metered_sync.media.sources.video import VideoSource as VideoSource
    from metered_sync.media.tracks.callbacks import FrameCallback as FrameCallback
    from metered_sync.media.tracks.capture import VideoCapture as VideoCapture
    from metered_sync.media.tracks.frame_queue import FrameQueue as FrameQueue
    from metered_sync.media.tracks.iteration import iter_frames as iter_frames
    from metered_sync.media.tracks.pcm import PcmReader as PcmReader
    from metered_sync.media.tracks.stream import MediaStream as MediaStream
    from metered_sync.media.tracks.track import RemoteTrack as RemoteTrack
    from metered_sync.options import During as During
    from metered_sync.options import DuringOutage as DuringOutage
    from metered_sync.options import ReconnectOptions as ReconnectOptions
    from metered_sync.peer import MeteredPeer as MeteredPeer
    from metered_sync.publication import Publication as Publication
    from metered_sync.remote_peer import RemotePeer as RemotePeer
    from metered_sync.sfu import SfuClient as SfuClient
    from metered_sync.sfu_api import SfuApi as SfuApi
    from metered_sync.sfu_api import SfuMedia as SfuMedia
    from metered_sync.tokens import mint_token as mint_token
    from metered_sync.turn import TurnApi as TurnApi
    from metered_sync.wire.control import Plan as Plan
    from metered_sync.wire.control import Token as Token
    from metered_sync.wire.control import Usage as Usage
    from metered_sync.wire.events import Connected as Connected
    from metered_sync.wire.events import Direct as Direct
    from metered_sync.wire.events import Disconnected as Disconnected
    from metered_sync.wire.events import Event as Event
    from metered_sync.wire.events import GoingAway as GoingAway
    from metered_sync.wire.events import IceServer as IceServer
    from metered_sync.wire.events import IceServerConfig as IceServerConfig
    from metered_sync.wire.events import Message as Message
    from metered_sync.wire.events import Outage as Outage
    from metered_sync.wire.events import Presence as Presence
    from metered_sync.wire.events import PresencePeer as PresencePeer
    from metered_sync.wire.events import ServerError as ServerError
    from metered_sync.wire.events import StateChange as StateChange
    from metered_sync.wire.events import TokenProviderError as TokenProviderError
    from metered_sync.wire.limits import ErrorCode as ErrorCode
    from metered_sync.wire.limits import WsCloseCode as WsCloseCode
    from metered_sync.wire.media_events import BitrateWanted as BitrateWanted
    from metered_sync.wire.media_events import ConnectionReset as ConnectionReset
    from metered_sync.wire.media_events import Data as Data
    from metered_sync.wire.media_events import DCClose as DCClose
    from metered_sync.wire.media_events import DCError as DCError
    from metered_sync.wire.media_events import DCMessage as DCMessage
    from metered_sync.wire.media_events import DCOpen as DCOpen
    from metered_sync.wire.media_events import FatalError as FatalError
    from metered_sync.wire.media_events import IceCandidateError as IceCandidateError
    from metered_sync.wire.media_events import Joined as Joined
    from metered_sync.wire.media_events import KeyFrameWanted as KeyFrameWanted
    from metered_sync.wire.media_events import Left as Left
    from metered_sync.wire.media_events import NegotiationError as NegotiationError
    from metered_sync.wire.media_events import SpeakersChanged as SpeakersChanged
    from metered_sync.wire.sfu import SessionInfo as SessionInfo
    from metered_sync.wire.sfu import TrackInfo as TrackInfo
    from metered_sync.wire.states import DataChannelState as DataChannelState
    from metered_sync.wire.states import MeteredPeerState as MeteredPeerState
    from metered_sync.wire.states import PeerConnectionState as PeerConnectionState
    from metered_sync.wire.states import SfuClientState as SfuClientState
    from metered_sync.wire.states import SignallingClientState as SignallingClientState
    from metered_sync.wire.turn import TurnCredential as TurnCredential
    from metered_sync.wire.turn import TurnCredentialPage as TurnCredentialPage

_MODULES = {
    "AckTimeoutError": "metered_sync.errors",
    "AudioSource": "metered_sync.media.sources.audio",
    "BitrateWanted": "metered_sync.wire.media_events",
    "CancelledError": "metered_sync.errors",
    "ClosedError": "metered_sync.errors",
    "Connected": "metered_sync.wire.events",
    "ConnectionReset": "metered_sync.wire.media_events",
    "ControlPlane": "metered_sync.control",
    "ControlPlaneError": "metered_sync.errors",
    "DCClose": "metered_sync.wire.media_events",
    "DCError": "metered_sync.wire.media_events",
    "DCMessage": "metered_sync.wire.media_events",
    "DCOpen": "metered_sync.wire.media_events",
    "Data": "metered_sync.wire.media_events",
    "DataChannel": "metered_sync.data_channel",
    "DataChannelOpened": "metered_sync.events",
    "DataChannelOverflowError": "metered_sync.errors",
    "DataChannelState": "metered_sync.wire.states",
    "Delivery": "metered_sync.delivery",
    "DeviceSource": "metered_sync.media.sources.devices",
    "Direct": "metered_sync.wire.events",
    "Disconnected": "metered_sync.wire.events",
    "DisconnectedError": "metered_sync.errors",
    "During": "metered_sync.options",
    "DuringOutage": "metered_sync.options",
    "EncodedSource": "metered_sync.media.sources.encoded",
    "EngineError": "metered_sync.errors",
    "ErrorCode": "metered_sync.wire.limits",
    "Event": "metered_sync.wire.events",
    "EventQueue": "metered_sync.bridge.event_hub",
    "FatalError": "metered_sync.wire.media_events",
    "FileSource": "metered_sync.media.sources.files",
    "ForkedError": "metered_sync.errors",
    "FrameCallback": "metered_sync.media.tracks.callbacks",
    "FrameQueue": "metered_sync.media.tracks.frame_queue",
    "GoingAway": "metered_sync.wire.events",
    "IceCandidateError": "metered_sync.wire.media_events",
    "IceServer": "metered_sync.wire.events",
    "IceServerConfig": "metered_sync.wire.events",
    "Joined": "metered_sync.wire.media_events",
    "KeyFrameWanted": "metered_sync.wire.media_events",
    "Left": "metered_sync.wire.media_events",
    "MediaError": "metered_sync.errors",
    "MediaNotFoundError": "metered_sync.errors",
    "MediaStream": "metered_sync.media.tracks.stream",
    "Message": "metered_sync.wire.events",
    "MeteredError": "metered_sync.errors",
    "MeteredPeer": "metered_sync.peer",
    "MeteredPeerOversizedError": "metered_sync.errors",
    "MeteredPeerReplaceTrackError": "metered_sync.errors",
    "MeteredPeerSendError": "metered_sync.errors",
    "MeteredPeerState": "metered_sync.wire.states",
    "MeteredPeerStateError": "metered_sync.errors",
    "MeteredRealtimeError": "metered_sync.errors",
    "MeteredTimeoutError": "metered_sync.errors",
    "NegotiationError": "metered_sync.wire.media_events",
    "NegotiationFailedError": "metered_sync.errors",
    "NotConnectedError": "metered_sync.errors",
    "Outage": "metered_sync.wire.events",
    "Overflow": "metered_sync.bridge.reader",
    "OversizedPayloadError": "metered_sync.errors",
    "PcmReader": "metered_sync.media.tracks.pcm",
    "PeerConnectionState": "metered_sync.wire.states",
    "PeerJoined": "metered_sync.events",
    "PeerLeft": "metered_sync.events",
    "Plan": "metered_sync.wire.control",
    "Presence": "metered_sync.wire.events",
    "PresencePeer": "metered_sync.wire.events",
    "Preview": "metered_sync.media.notebook.preview",
    "Publication": "metered_sync.publication",
    "ReconcileTimeoutError": "metered_sync.errors",
    "ReconnectOptions": "metered_sync.options",
    "Recorder": "metered_sync.media.recording.recorder",
    "RecordingInfo": "metered_sync.media.recording.info",
    "RemotePeer": "metered_sync.remote_peer",
    "RemoteTrack": "metered_sync.media.tracks.track",
    "ReplaceTrackFailure": "metered_sync.errors",
    "Republished": "metered_sync.events",
    "RestError": "metered_sync.errors",
    "RtspSource": "metered_sync.media.sources.rtsp",
    "ServerError": "metered_sync.wire.events",
    "ServerRequestError": "metered_sync.errors",
    "SessionInfo": "metered_sync.wire.sfu",
    "SfuApi": "metered_sync.sfu_api",
    "SfuGate": "metered_sync.gate",
    "SfuMedia": "metered_sync.sfu_api",
    "SfuAuthError": "metered_sync.errors",
    "SfuClient": "metered_sync.sfu",
    "SfuClientState": "metered_sync.wire.states",
    "SfuConflictError": "metered_sync.errors",
    "SfuError": "metered_sync.errors",
    "SfuNotFoundError": "metered_sync.errors",
    "SignallingClient": "metered_sync.client",
    "SignallingClientState": "metered_sync.wire.states",
    "SignallingConnectError": "metered_sync.errors",
    "SignallingError": "metered_sync.errors",
    "Snapshot": "metered_sync.media.snapshot",
    "SpeakersChanged": "metered_sync.wire.media_events",
    "StateChange": "metered_sync.wire.events",
    "StreamAdded": "metered_sync.events",
    "StreamRemoved": "metered_sync.events",
    "Subscription": "metered_sync.client",
    "Token": "metered_sync.wire.control",
    "TokenProviderError": "metered_sync.wire.events",
    "Track": "metered_sync.events",
    "TrackEnded": "metered_sync.events",
    "TrackInfo": "metered_sync.wire.sfu",
    "TurnApi": "metered_sync.turn",
    "TurnCredential": "metered_sync.wire.turn",
    "TurnCredentialPage": "metered_sync.wire.turn",
    "TurnError": "metered_sync.errors",
    "Usage": "metered_sync.wire.control",
    "VideoCapture": "metered_sync.media.tracks.capture",
    "VideoSource": "metered_sync.media.sources.video",
    "WrongThreadError": "metered_sync.errors",
    "WsCloseCode": "metered_sync.wire.limits",
    "from_camera": "metered_sync.media.sources.devices",
    "from_file": "metered_sync.media.sources.files",
    "from_microphone": "metered_sync.media.sources.devices",
    "from_rtsp": "metered_sync.media.sources.rtsp",
    "iter_frames": "metered_sync.media.tracks.iteration",
    "mint_token": "metered_sync.tokens",
    "screen_share": "metered_sync.media.sources.devices",
}
"""Where each public name lives."""
_ELSEWHERE = {
    "LocalCloud": "metered_sync.local",
    "PatternSource": "metered_sync.testing",
    "ToneSource": "metered_sync.testing",
    "dominant_frequency": "metered_sync.testing",
    "read_number": "metered_sync.testing",
}
"""Public names that are sought here, and live elsewhere."""
_WEBRTC = ("aioice", "aiortc", "av", "numpy")
"""The packages of the extra ``webrtc``."""
_NEEDS_WEBRTC = tuple(
    f"metered_sync.{name}."
    for name in ("data_channel", "media", "peer", "publication", "remote_peer", "sfu")
)
"""The beginnings of modules that cannot be imported without it."""


def _load(name: str) -> Any:
    if name == "__all__":
        return _exported()
    module = _MODULES.get(name)
    if module is None:
        elsewhere = _ELSEWHERE.get(name)
        hint = f": use  from {elsewhere} import {name}" if elsewhere else ""
        words = f"module 'metered_sync' has no attribute {name!r}"
        if _is_import(sys._getframe(1)) and (hint := hint or _alike(name)):
            raise ImportError(words + hint, name="metered_sync")
        words += hint
        raise AttributeError(words, name=name, obj=sys.modules[__name__])
    try:
        value = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in _WEBRTC:
            raise
        # No class can be both: CPython refuses ImportError and AttributeError as bases of one.
        kind = ImportError if _is_named(sys._getframe(1)) else AttributeError
        raise kind(
            f"{name} needs WebRTC ({error.name} is missing): "
            "run  pip install 'metered_sync[webrtc]'"
        ) from error
    globals()[name] = value
    return value


def _alike(name: str) -> str:
    """Return a hint at the name that is meant by another spelling (SignalingClient)."""
    import difflib

    # (A module's name begins in lower case, and may be imported yet.)
    near = difflib.get_close_matches(name, _MODULES, 1, 0.85) if name[:1].isupper() else []
    return f": is {near[0]} meant?" if near else ""


def _is_named(frame: FrameType) -> bool:
    """Say whether code names what it wants, in an import or after a dot.

    Otherwise ``hasattr``, ``getattr`` or a tool such as ``help`` asks whether it is there.
    """
    return _is_import(frame) or _instruction(frame) in ("LOAD_ATTR", "LOAD_METHOD")


def _is_import(frame: FrameType) -> bool:
    """Say whether an import statement looks for a name."""
    by_importlib = frame.f_code.co_filename == "<frozen importlib._bootstrap>"
    return by_importlib or _instruction(frame) == "IMPORT_FROM"


def _instruction(frame: FrameType) -> str:
    """Return the instruction that a frame of a traceback is at."""
    import opcode

    return opcode.opname[frame.f_code.co_code[frame.f_lasti]]


def _exported() -> list[str]:
    """Return the names that ``import *`` gives: with WebRTC where that is installed."""
    webrtc = all(_is_installed(package) for package in _WEBRTC)
    names = (
        name
        for name, module in _MODULES.items()
        if webrtc or not f"{module}.".startswith(_NEEDS_WEBRTC)
    )
    return sorted((*names, "__version__"))


def _is_installed(package: str) -> bool:
    import importlib.util

    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # a finder says so itself
        return False


def __dir__() -> list[str]:
    return sorted((*_MODULES, "__all__", "__version__"))


if not TYPE_CHECKING:  # a type checker would take every name for one that exists
    __getattr__ = _load
