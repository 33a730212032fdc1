"""Where the suite's seconds go: all of a test, and those to compile; the slowest with `--slowest N`."""

from collections import defaultdict
from typing import Any

import jax
import pytest

COMPILE = "/jax/core/compile/backend_compile_duration"


class Seconds:
    """Counts compilation while a test and its fixtures run, and prints what all workers counted."""

    def __init__(self, shown: int) -> None:
        self.shown, self.compiled = shown, 0.0
        self.took: dict[str, list[float]] = defaultdict(
            lambda: [0.0, 0.0]
        )  # of each test: all seconds, and to compile
        jax.monitoring.register_event_duration_secs_listener(self._count)

    def _count(self, event: str, seconds: float, **_: Any) -> None:
        self.compiled += seconds if event == COMPILE else 0.0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo) -> Any:
        report = yield
        report.compiled, self.compiled = (
            self.compiled,
            0.0,
        )  # a report's plain attributes travel from the workers
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        took = self.took[report.nodeid]
        took[0] += report.duration
        took[1] += getattr(report, "compiled", 0.0)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        write = terminalreporter.write_line
        totals = [sum(took[k] for took in self.took.values()) for k in (0, 1)]
        write("all tests together: {:.0f} s, of it {:.0f} s to compile".format(*totals))
        files: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for test, took in self.took.items():
            file = files[test.split("::")[0]]
            file[:] = [a + b for a, b in zip(file, took, strict=True)]
        for group in (files, self.took) if self.shown else ():
            write(f"\n{'seconds':>9}{'compile':>9}")
            for name, took in sorted(group.items(), key=lambda item: -item[1][0])[: self.shown]:
                write(f"{took[0]:9.1f}{took[1]:9.1f}  {name}")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--slowest",
        type=int,
        default=0,
        metavar="N",
        help="the N slowest files and tests, by seconds",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Seconds(config.getoption("--slowest")), "jaxomarl-seconds")
