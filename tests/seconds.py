"""Where the suite's seconds go: all of a test, and those to compile; the slowest with `--slowest N`.

Beside other work a clock says little, so processor seconds stand next to it, those of processes that a test waited for
included. A test that compiles hundreds of programs runs JAX's functions one by one: `jax.jit` around them helps.
"""

import os
import time
from collections import defaultdict
from typing import Any

import jax
import pytest

COMPILE = "/jax/core/compile/backend_compile_duration"


class Seconds:
    """Counts compilation while a test and its fixtures run, and prints what all workers counted."""

    def __init__(self, shown: int) -> None:
        self.shown, self.compiled, self.programs = shown, 0.0, 0
        self.spent = 0.0
        # of each test: all seconds, those of processors, those to compile, and programs that were compiled
        self.took: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0])
        self.began = time.time()
        self.ended: dict[str, float] = {}  # of each worker: when its last test did
        jax.monitoring.register_event_duration_secs_listener(self._count)

    def _count(self, event: str, seconds: float, **_: Any) -> None:
        if event == COMPILE:
            self.compiled += seconds
            self.programs += 1

    def pytest_runtestloop(self) -> None:
        self.spent = sum(os.times()[:4])  # imports are no test's

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo) -> Any:
        report = yield
        # a report's plain attributes travel from the workers
        now = sum(os.times()[:4])  # its own and its children's, user and system
        report.spent = now - self.spent, self.compiled, self.programs
        self.spent, self.compiled, self.programs = now, 0.0, 0
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        took = self.took[report.nodeid]
        spent = report.duration, *getattr(report, "spent", (0.0, 0.0, 0))
        took[:] = [a + b for a, b in zip(took, spent, strict=True)]
        if hasattr(report, "node"):
            self.ended[report.node.gateway.id] = report.stop - self.began

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        write = terminalreporter.write_line
        totals = [sum(took[k] for took in self.took.values()) for k in (0, 1, 2)]
        write(
            "all tests together: {:.0f} s, {:.0f} s of processors, {:.0f} s to compile".format(
                *totals
            )
        )
        if self.ended:  # a worker that ends long before the others waits for them
            ends = [f"{name} after {end:.0f} s" for name, end in sorted(self.ended.items())]
            write(f"the last tests ended: {', '.join(ends)}")
        files: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0])
        for test, took in self.took.items():
            file = files[test.split("::")[0]]
            file[:] = [a + b for a, b in zip(file, took, strict=True)]
        for group in (files, self.took) if self.shown else ():
            write(f"\n{'seconds':>9}{'processor':>10}{'compile':>9}{'programs':>9}")
            for name, took in sorted(group.items(), key=lambda item: -item[1][1])[: self.shown]:
                write(f"{took[0]:9.1f}{took[1]:10.1f}{took[2]:9.1f}{took[3]:9d}  {name}")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--slowest",
        type=int,
        default=0,
        metavar="N",
        help="the N slowest files and tests, by seconds of processors",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Seconds(config.getoption("--slowest")), "jaxomarl-seconds")
