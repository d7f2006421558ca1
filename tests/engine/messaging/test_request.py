from __future__ import annotations

from metered_sync.engine.messaging.request import Request


def test_the_first_outcome_counts() -> None:
    request = Request("1", "{}", "a test")
    error = OSError("late")
    request.finish()
    request.finish(error)
    assert (request.ended.is_set, request.error) == (True, None)


def test_functions_run_in_order_before_the_waiter_is_released() -> None:
    seen: list[tuple[str, bool]] = []
    request = Request("1", "{}", "a test", on_end=lambda r: seen.append(("first", r.ended.is_set)))
    request.then(lambda r: seen.append(("second", r.ended.is_set)))
    request.finish(OSError())
    assert seen == [("first", False), ("second", False)]
    assert request.ended.is_set


def test_then_needs_no_function_before_it() -> None:
    seen: list[Request] = []
    request = Request("1", "{}", "a test")
    request.then(seen.append)
    request.finish()
    assert seen == [request]


def test_its_size_is_that_of_the_text_in_bytes() -> None:
    assert Request("1", '"é"', "a test").size == 4
