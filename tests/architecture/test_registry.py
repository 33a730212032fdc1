"""Every system of the registry has its file, its preset and its row in docs/systems.md; and no row is left over.

Every table and figure that `reproduce` makes has its function, its sentence in `--help` and its row in
docs/reproduce.md.
"""

import itertools
import sys
from functools import partial
from pathlib import Path

import pytest

from jaxomarl.algorithms import REGISTRY
from jaxomarl.base import System
from jaxomarl.cli import commands
from jaxomarl.papers import REPRODUCTIONS
from jaxomarl.presets import PRESETS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "jaxomarl" / "algorithms"


def files() -> dict[str, Path]:
    """System -> the file that its pipeline was written in."""
    found = {}
    for name, system in REGISTRY.items():
        written = system.pipeline.func if isinstance(system.pipeline, partial) else system.pipeline
        found[name] = Path(str(sys.modules[written.__module__].__file__))
    return found


def first_cells(page: str) -> set[str]:
    """The names in backticks in the first cells of the first table of a page of the docs."""
    lines = (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("|"))
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[start:])
    return {name for row in rows for name in row.split("|")[1].split("`")[1::2]}


def test_the_registry_holds_systems():
    assert REGISTRY and all(isinstance(system, System) for system in REGISTRY.values())


def test_every_system_has_a_file_and_every_file_a_system():
    assert {
        name: path for name, path in files().items() if path.parent != FOLDER or not path.is_file()
    } == {}
    others = {
        FOLDER / "__init__.py",
        FOLDER / "coda.py",
    }  # CODA is a table of augmentations of any system
    assert set(FOLDER.glob("*.py")) - others == set(files().values())


def test_the_page_of_systems_lists_the_registry_and_nothing_else():
    assert first_cells("systems.md") == set(REGISTRY)


def test_every_system_has_a_preset_and_every_preset_systems():
    named = {name for preset in PRESETS.values() for name in preset.systems}
    assert set(REGISTRY) - named == set(), "systems without a preset"
    assert named - set(REGISTRY) == set(), "presets of systems that do not exist"
    assert [name for name, preset in PRESETS.items() if not preset.systems] == []


# --- what `reproduce` makes ---


def test_the_page_of_reproductions_lists_what_reproduce_makes_and_nothing_else():
    assert first_cells("reproduce.md") == set(REPRODUCTIONS)


@pytest.mark.parametrize("name", REPRODUCTIONS)
def test_every_reproduction_has_its_function_and_one_sentence(name):
    entry = REPRODUCTIONS[name]
    assert callable(entry.load())
    assert entry.about.endswith(".") and ". " not in entry.about


def test_help_lists_every_reproduction_with_its_sentence(capsys):
    with pytest.raises(SystemExit):
        commands.run("reproduce", ["--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name, entry in REPRODUCTIONS.items():
        assert f"{name}: {entry.about}" in shown
