"""The bridge: how blocking callers and the event loop reach each other.

============ =============================================================================
loop         the engine: a thread with an event loop; how a call crosses, and comes back
crossing     one such call: its function, its result, its end
event_loop   the loop that it runs: the real clock, names looked up on threads of our own
engines      the engine of this process
link         the engine's side of an object that stays open between calls
facade       the blocking side of it: opening, calling, closing, being collected
event_reader the queue of events
event_hub    an object's events, for the queues and callbacks that want them
dispatch     the threads that run users' functions
reader       the one bounded queue from the loop to blocking callers
threads      starting a thread, or saying why that cannot be
workers      blocking functions for the engine, on daemon threads of our own
atomic       what threads share, replaced without a lock
clock        the clock that all this goes by
deadline     deadlines, and the one way in which this library waits
guard        checks before a blocking call: the right process, the right thread
cells        functions that a notebook's cell registers again
logs         loggers that what listens to them cannot break
process      what happens after a fork, and at the exit; whether threads are real
============ =============================================================================

What lives here knows threads, locks and processes, and nothing of any protocol: it imports
``wire`` and ``errors`` alone. No function here is a coroutine that a user could see.
"""
