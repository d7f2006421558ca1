"""Open data channels on a connection, and close them where the peer refuses their section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiortc import RTCDataChannel

from metered_sync.engine.rooms.generation import Generation
from metered_sync.engine.rooms.sections import Sections
from metered_sync.errors import NegotiationFailedError

__all__ = ["OpeningChannels"]


class OpeningChannels:
    """The data channels of ours that may not be open yet."""

    def __init__(self, label: str, sections: Sections) -> None:
        self._label = label
        self._sections = sections
        self._opening: list[RTCDataChannel] = []

    def open(
        self, generation: Generation, label: str, options: Mapping[str, Any]
    ) -> RTCDataChannel:
        """Make a data channel on a generation; return it while it connects.

        Where the peer refuses it, there is an ``error`` event before the ``close``.
        """
        self._sections.want_data()
        if self._sections.refuses_data:
            raise self._refusal()
        raw = generation.pc.createDataChannel(label, **options)
        self._opening = [one for one in self._opening if one.readyState == "connecting"]
        self._opening.append(raw)
        generation.used = True
        return raw

    def refuse(self) -> None:
        """Close the data channels that wait for a section that the peer refuses."""
        waiting, self._opening = self._opening, []
        for raw in waiting:
            if raw.readyState == "connecting":
                if raw.listeners("error"):
                    raw.emit("error", self._refusal())
                raw.close()

    def _refusal(self) -> NegotiationFailedError:
        return NegotiationFailedError(
            f"{self._label}: the peer refuses data channels: it answers their section with port 0",
            stage="answer",
        )
