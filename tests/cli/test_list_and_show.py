"""What there is, in plain tables; a system on one page; help and refusals that know which system is meant."""

import shlex

import pytest

from jaxomarl.algorithms import REGISTRY
from jaxomarl.cli import boxes, columns, commands, focus, listing, qualities, show
from jaxomarl.cli.examples import EXAMPLES
from jaxomarl.cli.fields import described
from jaxomarl.envs import catalog
from jaxomarl.papers import REPRODUCTIONS
from jaxomarl.presets import PRESETS, find

TRAINING = [example for command in ("train", "sweep") for example in EXAMPLES[command]]


def said(capsys, *words):
    """What a command prints."""
    assert commands.run("", list(words)) == 0
    return capsys.readouterr().out


# --- list ---


def test_list_alone_says_what_can_be_listed(capsys):
    text = said(capsys, "list")
    assert all(
        f"jaxomarl list {name}" in text
        for name in ("systems", "tasks", "data", "presets", "tables")
    )
    assert "jaxomarl show SYSTEM" in text


def test_a_list_has_a_row_for_each_name(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)  # no terminal: a row is a line
    names = {
        "systems": list(REGISTRY),
        "tasks": [*catalog.names(), "jaxmarl/ID", "battle/N", "smax/MAP"],
        "presets": list(PRESETS),
        "tables": list(REPRODUCTIONS),
    }
    for kind, known in names.items():
        rows = said(capsys, "list", kind).splitlines()[1:]
        assert [row.split()[0] for row in rows] == known
        assert all(row == row.rstrip() and row.isascii() for row in rows)
    rows = [row.split()[:2] for row in said(capsys, "list", "data").splitlines()[1:]]
    sets = [(name, quality) for name in catalog.names() for quality in catalog.make(name).recipes]
    assert sorted(map(tuple, rows)) == sorted(sets)


def test_every_quality_of_the_package_is_described():
    tasks = [catalog.make(name) for name in catalog.names()]
    texts = [qualities.behaviours(task, quality) for task in tasks for quality in task.recipes]
    assert "the task's own recipe" not in texts
    task = catalog.make("mpe/spread")
    assert (
        qualities.behaviours(task._replace(name="own/spread"), "expert-modes")
        == "4 stored behaviours"
    )
    assert (
        qualities.behaviours(task._replace(name="own/spread", behaviours={}), "mine")
        == "the task's own recipe"
    )


def test_systems_are_told_apart():
    found = {name: boxes.box(name) for name in REGISTRY}
    assert len({box.sentence for box in found.values()}) == len(found)
    assert all(
        box.sentence.endswith(".") and box.cited and box.code and box.paper
        for box in found.values()
    )
    assert set(boxes.SENTENCES) <= set(REGISTRY)
    kinds = {name: boxes.kind(name) for name in REGISTRY}
    assert kinds["matd3"] == "online, decentralised" and kinds["brpo-jal"] == "offline, centralised"


@pytest.mark.parametrize("size", [24, 60, 100])
def test_tables_are_as_wide_as_the_terminal(monkeypatch, size):
    monkeypatch.setenv("COLUMNS", str(size))
    for kind in ("", *listing.LISTS):
        text = listing.listed(kind)
        longest = max(text.split(), key=len)
        assert max(map(len, text.splitlines())) <= max(size, len(longest) + 4)


def test_columns():
    assert columns.table(("a", "b"), [("x", "one two")], 40) == "a  b\nx  one two"
    assert columns.table(("name", "b"), [("x" * 20, "one two")], 24).splitlines()[1:] == [
        "    b", "x" * 20, "    one two",
    ]  # fmt: skip


# --- show ---


def test_sentences_of_a_box_are_filled_and_steps_are_not(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    page = show.page("fql", "games/bandit", "", "")
    assert "actions are\n  moved, and none is re-weighted. A mode is left" in page
    assert "\n      8   act: z ~ N(0, I), play clip f(o, z): one call\n" in page


@pytest.mark.parametrize("name", [*REGISTRY, "bc+coda"])
def test_a_page_has_the_paper_the_stages_and_every_field(monkeypatch, name):
    monkeypatch.delenv("COLUMNS", raising=False)
    for task in ("games/bandit", "mpe/spread"):
        page = show.page(name, task, "", "")
        assert page.isascii() and f"Stages on {task}" in page and " updates" in page
        assert max(map(len, page.splitlines())) <= show.PAGE
        for field in described(name):
            assert f"--cfg.{field.name.replace('_', '-')} " in page
            assert field.sentence.split()[0] in page


def test_a_field_has_its_value_on_the_task_and_from_where(capsys):
    page = " ".join(
        said(capsys, "show", "omsd", "--task", "mpe/spread", "--data", "expert").split()
    )
    preset = find("", "mpe/spread", "omsd")
    beta = preset.at("mpe/spread", "expert")["beta"]
    assert f"Values under preset particle: {preset.about}." in page
    assert f"default 0.005; particle {beta:g}; a sweep is one program." in page
    assert "default 512; particle 512; a sweep is a program per value." in page
    page = " ".join(said(capsys, "show", "omsd", "--preset", "paper-code").split())
    assert "Values under preset paper-code" in page and "particle" not in page
    page = " ".join(said(capsys, "show", "dof-t", "--task", "games/bandit").split())
    assert "No preset has values for dof-t here" in page


def test_a_page_is_of_the_first_task_with_a_preset():
    assert (show.usual("omsd"), show.usual("dof-t")) == ("games/bandit", "mpe/spread")
    assert (
        show.usual("maddpg-bc").startswith("mamujoco/") and show.usual("nobody") == "games/bandit"
    )


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (["list", "taks"], "WHAT: expected one of systems, tasks, data, presets, tables, found 'taks'. Did you"),
        (["show", "omds"], "Did you mean omsd"),
        (["show", "bc", "--task", "mpe/sprad"], "Did you mean mpe/spread"),
        (["show", "bc", "--task", "mpe/spread", "--data", "midium"], "Did you mean medium"),
        (["show", "bc", "--preset", "particel"], "Did you mean particle"),
        (["train", "bc", "--cfg.beta", "1"], "--cfg.beta: expected a field of bc, found 'beta'. It is a field of omsd"),
        (["train", "bc", "--cfg.polcy-lr", "1"], "Did you mean --cfg.policy-lr"),
    ],
)  # fmt: skip
def test_what_there_is_not_is_refused_with_what_there_is(capsys, words, refused):
    assert commands.run("", words) == 2
    assert refused in capsys.readouterr().err


# --- help ---


@pytest.mark.parametrize(
    ("command", "words", "systems"),
    [
        ("train", ["--seeds", "4", "bc", "--help"], ["bc"]),
        ("train", ["bc", "--augment", "eaq"], ["bc+eaq"]),
        ("train", ["nothing"], []),
        ("sweep", ["--systems", "bc", "omsd", "--seeds", "4"], ["bc", "omsd"]),
        ("sweep", ["--seeds", "4"], []),
        ("collect", ["bc"], []),
    ],
)
def test_the_systems_that_a_line_names(command, words, systems):
    assert focus.systems(command, words) == systems


@pytest.mark.parametrize("words", ["train", "sweep", "reproduce", "train bc --augment nothing"])
def test_help_without_a_system_points_to_where_the_fields_are(capsys, words):
    with pytest.raises(SystemExit):
        commands.run("", [*words.split(), "--help"])
    text = capsys.readouterr().out
    assert "jaxomarl show SYSTEM" in text and "--cfg.policy" not in text


def test_help_of_several_systems_says_whose_a_field_and_a_default_are(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "2000")
    with pytest.raises(SystemExit):
        commands.run("sweep", ["--systems", "omsd", "omar", "--help"])
    text = capsys.readouterr().out
    assert (
        "Weight of the Q gradient; larger is weaker regularisation. Only in omsd. (default: 0.005;"
        in text
    )
    assert "(default: omsd 512, omar 1024; takes a positive whole number)" in text
    assert "--cfg.eta" not in text


@pytest.mark.parametrize(
    "example", [TRAINING[0], *(pytest.param(x, marks=pytest.mark.long) for x in TRAINING[1:])]
)
def test_an_example_can_be_run(capsys, tmp_path, example):
    words = shlex.split(example)[1:]
    assert commands.run("", [*words, "--rows", "2000", "--out", str(tmp_path), "--dry-run"]) == 0
    assert "updates: " in capsys.readouterr().out
