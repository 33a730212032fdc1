"""Writes files while training goes on."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

TASKS = 4
"""Tasks at most that have not ended: a group of runs ends with as many, which hold its arrays."""


class AtOnce:
    """Does each task when it is given."""

    def do(self, task: Callable[[], None]) -> None:
        """Do a task; what it raises passes through."""
        task()

    def wait(self) -> None:
        """Nothing is left to wait for."""


class Background(AtOnce):
    """Does tasks in a thread, one at a time and in their order.

    A task's arrays must not be donated. What a task raises is raised by a later call, and no task
    is done after it: DONE must not follow a table that could not be written.
    """

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, "files")
        self.tasks: deque[Future[None]] = deque()
        self.failed = False

    def do(self, task: Callable[[], None]) -> None:
        """Take a task, once there is room for it."""
        self.wait(TASKS - 1)
        self.tasks.append(self.thread.submit(self._attempt, task))

    def wait(self, most: int = 0) -> None:
        """Wait until no more than `most` tasks have not ended."""
        while len(self.tasks) > most or (self.tasks and self.tasks[0].done()):
            self.tasks.popleft().result()

    def _attempt(self, task: Callable[[], None]) -> None:
        if self.failed:
            return
        try:
            task()
        except BaseException:
            self.failed = True
            raise

    def __enter__(self) -> "Background":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.wait()
        finally:
            self.thread.shutdown()
