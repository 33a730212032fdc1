"""The programs of the tutorial and of the how-tos run as they are printed, in order and in one folder."""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from jaxomarl.cli import commands

BASH = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def program(page: Path, folder: Path) -> Path:
    """A file with all Python of a page, each line at its place in the page."""
    text = page.read_text(encoding="utf-8")
    lines = [""] * (text.count("\n") + 1)
    for match in BLOCK.finditer(text):
        first = text.count("\n", 0, match.start(1))
        for k, line in enumerate(match[1].splitlines()):
            lines[first + k] = line
    path = folder / f"{page.stem}.py"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


# 30 s: it trains score models and four runs of OMSD
@pytest.mark.long
def test_the_tutorial_gives_the_bandit_result(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = runpy.run_path(str(program(root / "docs" / "tutorial.md", tmp_path)))
    assert 0.3 < made["marginal"] < 0.75
    assert made["sequential"] == 1.0 and made["by_learning"] == 1.0
    (returns,) = made["results"].returns.values()
    assert returns.mean() > 0.5


# --- how-tos ---


def sections(page: Path) -> dict[str, list[str]]:
    """The commands of each section of a page, one a line."""
    text = page.read_text(encoding="utf-8")
    found = {}
    for part in text.split("\n## ")[1:]:
        lines = "".join(BASH.findall(part)).replace("\\\n", " ").splitlines()
        found[part.partition("\n")[0]] = [line for line in lines if line.strip()]
    return found


def run(commands_of_a_section: list[str], capsys) -> str:
    """Run commands one after another; what they print."""
    shown = ""
    for line in commands_of_a_section:
        program_name, command, *flags = shlex.split(line)
        assert program_name == "jaxomarl"
        code = commands.run(command, flags)
        out, err = capsys.readouterr()
        assert code == 0, f"{line}\n{out}\n{err}"
        shown += out
    return shown


@pytest.fixture
def how_to(root, tmp_path, monkeypatch):
    """The page's commands by section, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(root))  # the jobs of a launcher
    return sections(root / "docs" / "how-to.md")


def test_the_page_has_the_sections_that_run(how_to):
    runs = [title for title, lines in how_to.items() if lines]
    assert runs == [
        "A sweep, from plan to paper",
        "A cluster of your own",
        "From OMAR's files, or OG-MARL's",
    ]


# 20 s: it compiles two systems, and writes a report
@pytest.mark.long
def test_a_sweep_from_plan_to_paper(how_to, capsys):
    shown = run(how_to["A sweep, from plan to paper"], capsys)
    assert "seeds 3" in shown and "Kostrikov" in shown and "short" in shown
    for name in ("summary.tex", "returns.png", "intervals.png"):
        assert Path("runs/paper", name).exists()
    assert "<html" in Path("report.html").read_text(encoding="utf-8")
    assert "episodes of each 16" in shown


# 20 s: two processes, each of which starts JAX
@pytest.mark.long
def test_jobs_on_this_machine(how_to):
    shown = ""
    # a launcher's commands in processes of their own, as it changes the process's output
    for line in how_to["A cluster of your own"]:
        words = [sys.executable, "-m", *shlex.split(line)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        shown += done.stdout
    assert "--data std0.3" in shown
    tables = list(Path("runs/jobs").rglob("summary.csv"))
    assert len(tables) == 2 and not Path("runs/queued").exists()
    assert "std0.1" in Path("jobs.html").read_text(encoding="utf-8")


# 10 s: it generates data of a particle task and trains on it
@pytest.mark.long
def test_other_peoples_files(how_to, capsys):
    shown = run(how_to["From OMAR's files, or OG-MARL's"], capsys)
    assert shown.count("transitions 500") >= 1
    assert list(Path("runs/omar").rglob("policy.safetensors"))


def test_the_parts_in_place_of_pytorch(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = runpy.run_path(str(program(root / "docs" / "how-to.md", tmp_path)))
    losses = made["losses"]
    assert losses.shape == (4, 200)
    assert (losses[:, -20:].mean(axis=1) < losses[:, :20].mean(axis=1)).all()
