"""Work ahead: the same results in the same order, errors as they were, and no thread that stays."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import pytest

from gliofed.shared.data.ahead import ahead


class OwnError(Exception):
    """Of a task."""


def fail() -> int:
    raise OwnError("as it was")


def threads() -> set[str]:
    return {each.name for each in threading.enumerate() if each.name.startswith("ahead")}


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert not threads()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_the_order_of_the_tasks(workers: int) -> None:
    """The first task takes longest, so that with three workers the others are done before it."""

    def slowly(number: int) -> int:
        time.sleep(0.05 if number == 0 else 0)
        return number

    assert list(ahead((partial(slowly, number) for number in range(20)), workers)) == [*range(20)]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_is_raised_in_its_place_as_it_was(workers: int) -> None:
    tasks = [partial(int, 7), partial(int, 8), fail, partial(int, 9)]
    results, found = ahead(tasks, workers), []
    with pytest.raises(OwnError, match="as it was"):
        found += results  # what came before the error is kept
    assert found == [7, 8]


def test_no_more_is_done_ahead_than_there_are_workers() -> None:
    """Else batches would fill the memory while a step is slow."""
    begun: list[int] = []
    with closing(ahead((partial(begun.append, number) for number in range(100)), workers=3)) as results:
        next(results)
        time.sleep(0.1)
        assert len(begun) <= 1 + 3


@pytest.mark.parametrize("stop", [OwnError, KeyboardInterrupt])
def test_who_stops_early_leaves_no_thread_and_does_not_wait_for_what_has_not_begun(stop: type[BaseException]) -> None:
    begun: list[int] = []

    def wait(number: int) -> int:
        begun.append(number)
        time.sleep(0.02)
        return number

    with (
        pytest.raises(stop),
        closing(ahead((partial(wait, number) for number in range(1000)), workers=1)) as results,
    ):
        assert next(results) == 0
        raise stop
    assert len(begun) <= 3 and not threads()
