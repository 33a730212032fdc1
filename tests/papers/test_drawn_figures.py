"""Every figure that has a name draws from the folders of runs at toy size, and says their scale."""

import csv
import json

import pytest

from jaxomarl.cli import commands
from jaxomarl.papers import ALIASES, REPRODUCTIONS, points
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.dom2 import figures as dom2_figures
from jaxomarl.papers.omsd import figures as omsd_figures

RUN = ["--seeds", "2", "--rows", "200", "--episodes", "2", "--final-episodes", "4"]
CLONE = [
    "--cfg.chunk", "2", "--cfg.every", "1", "--cfg.policy-steps", "4", "--cfg.policy-width", "8",
    "--cfg.policy-batch", "16",
]  # fmt: skip
SPREAD = ["--tasks", "mpe/spread", "--data", "medium"]
OMSD = [
    *CLONE, "--systems", "omsd", "--cfg.critic-steps", "2", "--cfg.critic-width", "8",
    "--cfg.critic-batch", "16", "--cfg.score-steps", "2", "--cfg.score-width", "8",
    "--cfg.score-batch", "16", "--cfg.score-blocks", "1",
]  # fmt: skip
BC = [*RUN, *CLONE, "--systems", "bc"]
TOYS = {
    "omsd-fig2": ([*RUN, *OMSD, "--data", "std0.3", "--scale", "0.5"], "directions.png", "omsd"),
    "omsd-fig4a": ([*BC, *SPREAD], "intervals.png", "bc"),
    "omsd-fig8": ([*RUN, *OMSD, *SPREAD], "curves.png", "mpe/spread: beta"),
    "omsd-fig9": ([*BC, *SPREAD], "evolution.png", "distance to the data"),
    "omsd-fig10": ([*RUN, *OMSD, *SPREAD], "curves.png", "order=2-1-0"),
    "omsd-fig11": (["--rows", "200", *SPREAD], "returns.png", "mpe/spread/medium"),
    "omsd-fig13": (
        ["--rows", "50", "--tasks", "mamujoco/2ant", "--data", "random"],
        "returns.png",
        "mamujoco/2ant/random",
    ),
    "dom2-fig6": ([*BC, *SPREAD], "intervals.png", "linear start"),
    "dom2-fig11": ([*BC, "--data", "random"], "returns.png", "joint solutions"),
    "dof-fig5": (
        [*BC, "--tasks", "smax/3m", "--scale", "0.5"],
        "curves.png",
        "smax/3m",
    ),
    "dof-fig6": ([*BC, *SPREAD], "curves.png", "bc"),
    "coda-fig4": ([*BC, *SPREAD], "intervals.png", "bc"),
    "coda-fig5": ([*BC, *SPREAD], "curves.png", "bc"),
}
"""Name -> flags of a toy, the picture, and a word of the text."""
GAMES = [
    (
        "coda-fig1",
        ["--scale", "0.01", "--seeds", "2"],
        ("multiplication.png", "twin-peaks.png"),
    ),
    (
        "dof-fig3",
        ["--scale", "0.001", "--seeds", "1"],
        ("four-gaussians.png", "covering.png", "circle.png"),
    ),
]
"""A figure of games, its toy, and the pictures of all figures that the games draw."""
QUICK = ("omsd-fig11",)
NAMES = [n if n in QUICK else pytest.param(n, marks=pytest.mark.long) for n in TOYS]
"""The others compile systems and rollouts, or step robots and battles: 3 to 15 s each."""


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Fewer values of what is swept, and a part that behaviour cloning has."""
    monkeypatch.setattr(omsd_figures, "BETAS", (0.01, 0.1))
    monkeypatch.setattr(omsd_figures, "ORDERS", ("0-1-2", "2-1-0"))
    monkeypatch.setattr(dom2_figures, "PARTS", {"linear start": ("policy_lr", 0.1)})


@pytest.mark.parametrize("name", NAMES)
def test_it_draws(name, tmp_path, capsys):
    flags, picture, word = TOYS[name]
    code = commands.run("reproduce", [name, *flags, "--out", str(tmp_path)])
    out, err = capsys.readouterr()
    assert code == 0, out + err
    assert word in (tmp_path / f"{name}.md").read_text(encoding="utf-8")
    drawn = (tmp_path / picture).read_bytes()
    assert drawn.startswith(b"\x89PNG") and len(drawn) > 8000


def test_every_figure_of_trained_systems_is_tried():
    elsewhere = {"dom2-fig5", "dom2-fig7", "dof-fig8"}  # by the tests of their papers
    tried = set(TOYS) | elsewhere | {"dof-fig7"}
    assert {name for name in REPRODUCTIONS if "-fig" in name} == tried


FIGURES = {
    "omsd": ("2", "4a", "4b", "4c", "8", "9", "10", "11", "12", "13"),
    "dom2": ("1", "5", "6", "7", "10", "11"),
    "dof": ("3", "4", "5", "6", "7", "8", "10"),
    "coda": ("1", "2", "3", "4", "5"),
}
"""The figures of each paper that measure something; DoF's 5 in kind."""


def test_every_figure_of_the_papers_has_a_name():
    names = {f"{paper}-fig{number}" for paper, numbers in FIGURES.items() for number in numbers}
    known = {name for name in (*REPRODUCTIONS, *ALIASES) if "-fig" in name}
    assert known == names


@pytest.mark.long
@pytest.mark.parametrize(("name", "flags", "pictures"), GAMES)
def test_games_draw_their_figures(name, flags, pictures, tmp_path, capsys):
    code = commands.run("reproduce", [name, *flags, "--out", str(tmp_path)])
    assert code == 0, capsys.readouterr().err
    for picture in pictures:
        drawn = (tmp_path / picture).read_bytes()
        assert drawn.startswith(b"\x89PNG") and len(drawn) > 8000, picture


def test_times_are_drawn_from_the_lines_of_a_benchmark(tmp_path, capsys):
    asked = ["dof-fig7", "--out", str(tmp_path)]
    assert commands.run("reproduce", asked) == 2
    assert "python -m benchmarks.reverse_process --out" in capsys.readouterr().err

    timed = {"benchmark": "reverse_process", "calls": 20, "samples": 3, "how": "whole chain"}
    chain = {"sampler": "ddim", "seconds_low": 0.5e-3, "seconds_high": 9e-3, **timed}
    lines = [
        {"f": f, "agents": n, "seconds": 1e-3 * n, **chain}
        for f in ("concat", "own")
        for n in (2, 4)
    ]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (tmp_path / "reverse_process.jsonl").write_text(text)
    assert commands.run("reproduce", asked) == 0, capsys.readouterr().err
    said = (tmp_path / "dof-fig7.md").read_text(encoding="utf-8")
    assert "| ddim, 20 calls | own | 4 | 4 | 0.5 to 9 | whole chain |" in said
    with open(tmp_path / "points.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["curve"], float(row["x"]), float(row["mean"])) for row in rows] == [
        ("concat", 2.0, 2.0),
        ("concat", 4.0, 4.0),
        ("own", 2.0, 2.0),
        ("own", 4.0, 4.0),
    ]


def test_another_name_of_a_figure_is_known(tmp_path):
    assert set(ALIASES.values()) <= set(REPRODUCTIONS)
    assert not set(ALIASES) & set(REPRODUCTIONS)
    flags = ["omsd-fig12", "--rows", "200", *SPREAD, "--out", str(tmp_path)]
    assert commands.run("reproduce", flags) == 0
    with open(tmp_path / "omsd-fig11.csv") as file:
        (row,) = csv.DictReader(file)
    assert row["transitions"] == "200" and row["episodes"] == "8"


@pytest.mark.parametrize(("name", "flag"), [("omsd-fig8", "beta"), ("omsd-fig10", "order")])
def test_what_a_figure_sweeps_cannot_be_set(name, flag, tmp_path, capsys):
    value = {"beta": "0.1", "order": "0-1-2"}[flag]
    flags = [name, f"--cfg.{flag}", value, "--out", str(tmp_path)]
    assert commands.run("reproduce", flags) == 2
    assert "what is swept" in capsys.readouterr().err


@pytest.mark.parametrize(("scale", "said"), [(1.0, ""), (0.125, "0.125")])
def test_a_figure_says_its_scale(scale, said, tmp_path):
    asked = Asked([0], scale, tmp_path, lambda: False)
    note = points.scale_note(asked)
    assert said in note and bool(note) == (scale != 1.0)
