"""Let those use the SFU who may not hold its secret: a gate that runs on the application's server.

============ =============================================================================
gate         check a call and its token, forward it, answer
tickets      bind a session to the one who made it
descriptions narrow a description, so that whoever may not publish cannot send
wsgi         the gate as a WSGI application
============ =============================================================================

The door is :class:`~metered_sync.gate.gate.SfuGate`.
"""

from metered_sync.gate.gate import SfuGate
from metered_sync.gate.wsgi import MAX_READ

__all__ = ["MAX_READ", "SfuGate"]
