"""Read and write JSON without the optional library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from metered_sync.wire import json_codec
from metered_sync.wire.frames import bulk

__all__ = ["plain_json"]


@contextmanager
def plain_json() -> Iterator[None]:
    """Have the library do without ``msgspec``, as where it is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_codec, "_quick_encoder", None)
        patch.setattr(json_codec, "_quick_decoder", None)
        patch.setattr(bulk, "decoder", None)
        yield
