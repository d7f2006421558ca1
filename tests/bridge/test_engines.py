"""Test the engine of a process: one, started on first use, stopped at exit."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from metered_sync.bridge import engines
from metered_sync.bridge.loop import Engine
from tests.conftest import run_script

START = """
import os, sys, threading, time
from metered_sync.bridge import engines
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.link import Link
from metered_sync.bridge.loop import Engine

class Open(Link):
    def __init__(self, name, work=None):
        self.name, self.work = name, work
    async def open(self, engine):
        self.engine = engine
        engine.links.add(self)
    async def aclose(self):
        if self.work is not None:
            await self.work()
        self.engine.links.discard(self)
        print("closed", self.name, flush=True)
    def abort(self, error):
        print("aborted", self.name, flush=True)

def opened(engine, *links):
    for link in links:
        engine.call(link.open, engine, deadline=Deadline(5), what="open")
"""


def run(source: str, before: str = "") -> list[str]:
    """Run a script; return the lines that it printed."""
    done = run_script(before + START + source)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_there_is_one_engine_for_the_process() -> None:
    found: list[Engine] = []
    threads = [threading.Thread(target=lambda: found.append(engines.current())) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(set(found)) == 1
    assert engines.current() is found[0]


def test_an_engine_that_has_died_is_followed_by_a_new_one() -> None:
    assert run("""
import logging
logging.disable()
first = engines.current()
def die():
    raise SystemExit
first.post(die)
first.join(Deadline(5))
second = engines.current()
print(second is not first, second.error is None, engines.current() is second)
""") == ["True True True"]


def test_links_are_closed_at_exit_those_of_the_clients_first() -> None:
    assert run("""
server = Engine("another").start()
opened(server, Open("server"))
opened(engines.current(), Open("client"))
""") == ["closed client", "closed server"]


def test_a_link_that_fails_to_close_keeps_nobody() -> None:
    lines = run("""
async def fail():
    raise LookupError
async def hang():
    import anyio
    await anyio.sleep_forever()
opened(engines.current(), Open("a", fail), Open("b", hang), Open("c"))
""")
    assert lines[0] == "closed c"
    assert sorted(lines[1:]) == ["aborted a", "aborted b"]


def test_the_loops_have_stopped_when_the_process_ends() -> None:
    # (Registered before the library's own function, it runs after it.)
    before = "import atexit\natexit.register(lambda: print(engine._thread.is_alive()))\n"
    assert run("engine = engines.current()", before) == ["False"]


def test_what_a_thread_opens_after_the_main_one_has_ended_is_closed_too() -> None:
    # (In Python 3.12 no thread begins any more by then.)
    late = ["closed late", "too late"] if sys.version_info >= (3, 12) else ["closed late"]
    first, last = run("""
from metered_sync.errors import EngineError
def work():
    first.join(Deadline(20))      # it ends with the first run of the exit
    try:
        engine = Engine("late").start()
    except EngineError:
        print("too late")
    else:
        opened(engine, Open("late"))
first = engines.current()
opened(first, Open("early"))
threading.Thread(target=work).start()
""")
    assert first == "closed early"
    assert last in late


def test_an_engine_may_end_at_any_moment_and_no_call_is_lost() -> None:
    assert run("""
import random
engines.LOOK_EVERY = 0.0005
seen, numbers = set(), []
async def number(n):
    return n
class Holder:
    pass
def work(seed):
    chance = random.Random(seed)
    for n in range(300):
        if chance.random() < 0.5:
            with engines.in_use() as engine:
                numbers.append(engine.call(number, n, deadline=Deadline(20), what="number"))
        else:
            holder = Holder()
            engine = engines.hold(holder)
            numbers.append(engine.call(number, n, deadline=Deadline(20), what="number"))
            assert engine.error is None
            del holder
        seen.add(engine)
        time.sleep(chance.random() * 0.003)
threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sorted(numbers) == sorted([*range(300)] * 3), len(seen) > 1)
for engine in seen:
    engine.join(Deadline(20))
print(sum(thread.name == "metered-sync" for thread in threading.enumerate()))
""") == ["True True", "0"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_process_may_fork_or_end_at_any_moment_of_an_engine_that_ends() -> None:
    assert run("""
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
engines.LOOK_EVERY = 0.002
async def nothing():
    pass
children = []
for turn in range(8):
    with engines.in_use() as engine:
        engine.call(nothing, deadline=Deadline(5), what="nothing")
    time.sleep(turn * 0.0012)
    children.append(os.fork())
    if children[-1] == 0:
        with engines.in_use() as own:
            assert own is not engine
            own.call(nothing, deadline=Deadline(5), what="nothing")
        time.sleep(turn * 0.0012)
        sys.exit()
for pid in children:
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
print("done")
""") == ["done"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_child_has_an_engine_of_its_own() -> None:
    assert run("""
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
import av, gc
parents = engines.current()
pid = os.fork()
if pid == 0:
    assert gc.get_freeze_count() > 0
    own = engines.current()
    assert own is not parents
    opened(own, Open("the child's"))
    sys.exit()
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert engines.current() is parents
""") == ["closed the child's"]
