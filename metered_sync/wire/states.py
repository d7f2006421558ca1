"""Name the values that ``state`` has, for annotations.

==================== ====================================================================
SignallingClient     idle → connecting → connected ⇄ reconnecting → closed
MeteredPeer          idle → joining → joined ⇄ reconnecting → leaving → closed
RemotePeer           idle → connecting → connected ⇄ reconnecting → closed
SfuClient            idle → connecting → connected ⇄ reconnecting → closed
DataChannel          connecting → open → closing → closed
==================== ====================================================================
"""

from __future__ import annotations

from typing import Literal

__all__ = [
    "DataChannelState",
    "MeteredPeerState",
    "PeerConnectionState",
    "SfuClientState",
    "SignallingClientState",
]

SignallingClientState = Literal["idle", "connecting", "connected", "reconnecting", "closed"]
"""The states of a messaging connection."""
MeteredPeerState = Literal["idle", "joining", "joined", "reconnecting", "leaving", "closed"]
"""The states of a peer in its room."""
PeerConnectionState = Literal["idle", "connecting", "connected", "reconnecting", "closed"]
"""The states of the media connection to a member of a room."""
SfuClientState = Literal["idle", "connecting", "connected", "reconnecting", "closed"]
"""The states of a session with the SFU."""
DataChannelState = Literal["connecting", "open", "closing", "closed"]
"""The states of a data channel."""
