"""Files are written in their order, and nothing follows a task that failed."""

import threading

import pytest

from jaxomarl.training.background import TASKS, Background


def test_tasks_are_done_in_their_order_while_the_caller_goes_on():
    go, done = threading.Event(), []
    with Background() as background:
        background.do(lambda: done.append(go.wait()))
        background.do(lambda: done.append(2))
        assert done == []
        go.set()
    assert done == [True, 2]


def test_a_task_waits_for_room():
    go, done = threading.Event(), []
    with Background() as background:
        background.do(lambda: done.append(go.wait()))
        for _ in range(TASKS - 1):
            background.do(lambda: done.append(go.is_set()))
        threading.Timer(0.05, go.set).start()
        background.do(lambda: None)
        assert done[0]


def test_what_a_task_raises_reaches_the_caller_and_nothing_is_done_after_it():
    done = []

    def fail() -> None:
        raise OSError(28, "No space left on device", "metrics.csv")

    with pytest.raises(OSError, match=r"metrics\.csv"), Background() as background:
        background.do(fail)
        background.do(lambda: done.append("DONE"))
        background.wait()
    assert done == []


def test_a_caller_that_stops_waits_for_its_files():
    done = []
    with pytest.raises(KeyboardInterrupt), Background() as background:
        background.do(lambda: done.append("saved"))
        raise KeyboardInterrupt
    assert done == ["saved"]
