"""Examine, stage by stage, whether everything works from here, and say what to do where not.

:func:`run` is the door, and returns a :class:`Report`. A stage is a function that
takes the :class:`~metered_sync.doctor.patient.Patient` and returns an outcome: what was found, and
the remedy.

============ ===========================================================================
examination  the stages in their order, what each depends on, and the time they may take
patient      what the stages share: settings, time that is left, one connection
settings     addresses and keys, and what is wrong with a key by its form
surroundings environment, keys
reach        dns, tcp, tls, clock
messaging    welcome, permissions, roundtrip, reconnect
refusals     what a refused messaging connection means
servers      the ICE servers in use, and their addresses
ice          ice, stun, turn
probes       packets to STUN and through TURN servers
peers        peers
media        sfu, media
outcome      what a stage found
report       all findings, as text, JSON and a table
============ ===========================================================================
"""

from metered_sync.doctor.examination import STAGES, run
from metered_sync.doctor.report import Finding, Report

__all__ = ["STAGES", "Finding", "Report", "run"]
