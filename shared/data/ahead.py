"""Work that is done ahead of whoever needs its results."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(tasks: Iterable[Callable[[], T]], workers: int) -> Generator[T, None, None]:
    """Yield what the tasks return, in their order. While one result is used, `workers` threads make as many more.

    Without workers each task runs when its result is asked for. An error of a task is raised in its place, as it was.
    Whoever stops early closes the generator: what was not begun is dropped, and no thread is left.
    """
    if not workers:
        for task in tasks:
            yield task()
        return
    pool, waiting = ThreadPoolExecutor(workers, "ahead"), deque[Future[T]]()
    try:
        for task in tasks:
            waiting.append(pool.submit(task))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
