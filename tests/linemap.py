"""Which tests execute which lines of the package: a pytest plugin for tests/mutation.py, from Python 3.12 on.

    PYTHONPATH=tests LINEMAP=folder python -m pytest -p linemap

writes one JSON a worker: {"source": digest of the package, test file: {"seconds": of all its tests, source file:
[lines], ...}}. A program that an earlier test compiled is not traced again, so a line counts for the file that ran it
first, and for each that runs it in another program.
"""

import hashlib
import json
import os
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

PACKAGE = str(Path(__file__).parents[1] / "jaxomarl") + os.sep


def source() -> str:
    """A digest of the package: line numbers are of these files alone."""
    files = sorted(Path(PACKAGE).rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


class LineMap:
    """Listens to lines of the package alone, and asks anew for each test."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen = folder, defaultdict(lambda: defaultdict(set))
        self.now: dict[str, set[int]] = defaultdict(set)
        self.seconds: dict[str, float] = defaultdict(float)
        self.watch: Any = sys.monitoring  # type: ignore[attr-defined]
        self.tool = self.watch.COVERAGE_ID
        self.watch.use_tool_id(self.tool, "linemap")
        events = self.watch.events
        self.watch.register_callback(self.tool, events.PY_START, self._function)
        self.watch.register_callback(self.tool, events.LINE, self._line)
        self.watch.set_events(self.tool, events.PY_START)

    def _function(self, code: Any, offset: int) -> Any:
        if code.co_filename.startswith(PACKAGE):
            self.watch.set_local_events(self.tool, code, self.watch.events.LINE)
        return self.watch.DISABLE

    def _line(self, code: Any, line: int) -> Any:
        self.now[code.co_filename[len(PACKAGE) :]].add(line)
        return self.watch.DISABLE

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        file, start = item.nodeid.split("::")[0], time.monotonic()
        self.now = self.seen[file]
        self.watch.restart_events()
        outcome = yield
        self.seconds[file] += time.monotonic() - start
        return outcome

    def pytest_sessionfinish(self) -> None:
        self.watch.set_events(self.tool, self.watch.events.NO_EVENTS)
        self.watch.free_tool_id(self.tool)
        found = {
            test: {"seconds": self.seconds[test]}
            | {file: sorted(lines) for file, lines in of.items()}
            for test, of in self.seen.items()
        }
        worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
        if found:
            (self.folder / f"{worker}.json").write_text(
                json.dumps({"source": source(), **found}), encoding="utf-8"
            )


def pytest_configure(config: pytest.Config) -> None:
    folder = Path(os.environ["LINEMAP"])
    folder.mkdir(parents=True, exist_ok=True)
    config.pluginmanager.register(LineMap(folder), "jaxomarl-linemap")
