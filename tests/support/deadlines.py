"""Let the deadline of a call pass where it is to pass, on a machine that may be busy."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from metered_sync import MeteredTimeoutError

__all__ = ["expired"]


def expired(
    call: Callable[[float], object],
    reached: Callable[[MeteredTimeoutError], object],
    *,
    first: float = 0.3,
) -> MeteredTimeoutError:
    """Return the error of a call whose deadline has passed, once it had come far enough by then.

    Args:
        call: Makes the call, which does not end by itself, with a timeout.
        reached: Says whether it had come far enough. If not, this machine is busy, and the call
            is made again with more time; what is to be asserted is for the caller to assert.
        first: The first timeout, in seconds.
    """
    for timeout in (first, 3.0, 15.0):
        with pytest.raises(MeteredTimeoutError) as caught:
            call(timeout)
        if reached(caught.value):
            break
    return caught.value
