"""The bridge: how blocking callers and the event loop reach each other.

========== =============================================================================
loop       the engine's thread and its event loop; how a call crosses, and comes back
dispatch   events for users: queues, waiting, and the threads that run their callbacks
reader     the one bounded queue from the loop to blocking callers
deadline   deadlines, and the one way in which this library waits
guard      checks before a blocking call: the right process, the right thread
workers    blocking functions for the engine, on daemon threads of our own
========== =============================================================================

What lives here knows threads, locks and processes, and nothing of any protocol: it imports
``wire`` and ``errors`` alone. No function here is a coroutine that a user could see.
"""
