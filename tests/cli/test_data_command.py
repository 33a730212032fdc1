"""`data describe|validate|convert|diff`: on recipes, our own folders and other people's formats; and its refusals."""

import json
import sys

import numpy as np
import pytest

from jaxomarl.cli import commands
from jaxomarl.data import files, formats
from jaxomarl.results.store import read_json

SMALL = ("--rows", "250")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small set of mpe/spread in our own folder."""
    out = tmp_path_factory.mktemp("card") / "ours"
    assert (
        commands.run("collect", ["mpe/spread", "--quality", "random", *SMALL, "--out", str(out)])
        == 0
    )
    return out


@pytest.fixture(scope="module")
def omar(folder, tmp_path_factory):
    """The same rows in OMAR's layout, its quality in the path."""
    out = tmp_path_factory.mktemp("omar") / "simple_spread" / "random"
    assert commands.run("data", ["convert", str(folder), str(out), "--to", "omar"]) == 0
    return out


@pytest.fixture
def said(capfd):
    """said(code, *flags): the output of a command that ends so."""

    def run(code, *flags):
        capfd.readouterr()
        try:
            ended = commands.run("data", [str(x) for x in flags])
        except SystemExit as stop:  # tyro's way
            ended = stop.code
        out = capfd.readouterr()
        assert ended == code, out
        assert "Traceback" not in out.err
        return out.out if code < 2 else out.out + out.err

    return run


# --- describe ---


def test_a_recipe_and_a_folder_have_the_same_card(said, folder):
    text = said(0, "describe", "mpe/spread/random", *SMALL)
    for words in (
        "250 in 10 episodes of 25 steps",
        "agents 3",
        "landmark 2 dy",
        "time-outs 10",
        "OMAR's data",
    ):
        assert words in text
    (ours,) = json.loads(said(0, "describe", folder, "--json"))
    (made,) = json.loads(said(0, "describe", "mpe/spread/random", *SMALL, "--json"))
    beside = ("name", "evidence")
    assert {k: v for k, v in ours.items() if k not in beside} == {
        k: v for k, v in made.items() if k not in beside
    }
    held = read_json(folder / "manifest.json")
    assert made["return"]["mean"] == pytest.approx(held["return"]["mean"])
    assert made["return"]["normalised"] == pytest.approx(held["normalised"])


def test_several_cards_are_written_and_drawn(said, folder, omar, tmp_path):
    from PIL import Image

    out = tmp_path / "cards"
    sets = ("mpe/spread/medium", folder, omar)
    command = ("describe", *sets, *SMALL, "--task", "mpe/spread", "--out", out)
    text = said(0, *command)
    assert (out / "card.txt").read_text() == text
    made = json.loads((out / "card.json").read_text())
    assert [c["quality"] for c in made] == ["medium", "random", "random"] and made[2][
        "format"
    ] == "omar"
    assert (
        made[0]["behaviours"]["count"] == 4
        and sum(x["episodes"] for x in made[0]["behaviours"]["each"].values()) == 10
    )
    assert made[1]["return"]["mean"] == pytest.approx(made[2]["return"]["mean"], abs=1e-3)
    assert made[2]["dialects"][0] == "mpe-omar" and made[2]["evidence"]
    with Image.open(out / "card.png") as image:
        assert image.size[0] > 800
    first = (out / "card.png").read_bytes()
    said(0, *command)
    assert (out / "card.png").read_bytes() == first  # the same card, the same bytes


def test_a_path_without_a_task_is_scored_raw_and_says_so(said, omar):
    text = said(0, "describe", omar)
    assert "raw only" in text and "obs 17" in text and "mpe-omar" in text and "evidence" in text


def test_text_and_json_come_without_matplotlib(said, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    said(0, "describe", folder, "--out", tmp_path / "c")
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["card.json", "card.txt"]


# --- validate, convert, diff ---


def test_what_fits_is_said_with_its_repairs(said, folder, omar):
    for path in (folder, omar):
        assert "fits mpe/spread: 250 transitions in 10 episodes" in said(
            0, "validate", path, "--task", "mpe/spread"
        )
    assert "nothing had to be repaired" in said(0, "validate", folder, "--task", "mpe/spread")


def test_rounded_actions_are_repaired_and_others_refused(said, omar, tmp_path):
    import shutil

    shutil.copytree(omar, tmp_path / "near")
    (file,) = (tmp_path / "near").rglob("acs_1.npy")
    action = np.load(file, allow_pickle=False)
    action[3, 0] = 1.00001
    np.save(file, action)
    text = said(0, "validate", tmp_path / "near", "--task", "mpe/spread")
    assert "repaired" in text and "clipped" in text
    action[3, 0] = 1.5
    np.save(file, action)
    assert "1.5" in said(2, "validate", tmp_path / "near", "--task", "mpe/spread")
    assert "beyond it 0.0667 %" in said(
        0, "describe", tmp_path / "near"
    )  # 1 of 1500 numbers: a card refuses nothing


def test_another_task_is_refused(said, folder, omar):
    for path in (folder, omar):
        text = said(2, "validate", path, "--task", "mpe/tag")
        assert "expected" in text and "found" in text


@pytest.mark.parametrize("to", [name for name, row in formats.FORMATS.items() if row.write])
def test_there_and_back_is_the_same_content(said, folder, tmp_path, to):
    said(0, "convert", folder, tmp_path / to, "--to", to)
    said(0, "convert", tmp_path / to, tmp_path / "back", "--to", "jaxomarl", "--task", "mpe/spread")
    if to == "vault":  # it has no row for an episode's last observation
        found = json.loads(said(1, "diff", folder, tmp_path / "back", "--json"))
        assert found["counts"]["b"]["unknown_successors"] == 10 and not found["shapes"]
        assert {row["field"].split()[0] for row in found["rows"]} == {"obs", "state", "known"}
        assert found["return"]["ks_distance"] == 0.0 and not found["columns"]
    else:
        assert said(0, "diff", folder, tmp_path / "back").startswith("the same content")
    assert read_json(tmp_path / "back" / files.MANIFEST)["origin"]["format"] == to


def test_a_recipe_is_the_folder_that_was_collected_from_it(said, folder):
    assert "the same content" in said(0, "diff", "mpe/spread/random", folder, *SMALL)


def test_two_qualities_differ(said, folder):
    text = said(1, "diff", folder, "mpe/spread/medium", *SMALL)
    assert (
        text.startswith("different")
        and "standard errors" in text
        and "KS" in text
        and "row 0" in text
    )
    found = json.loads(said(1, "diff", folder, "mpe/spread/medium", *SMALL, "--json"))
    assert not found["same"] and 0.0 < found["return"]["ks_distance"] <= 1.0


# --- refusals ---


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("describe", "mpe/spread/mediun"), ("medium",)),
        (("describe", "mpe/spreed/medium"), ("PATH|RECIPE", "Did you mean mpe/spread/medium")),
        (("describe", "./nothing"), ("PATH|RECIPE", "./nothing")),
        (("describe",), ("PATH|RECIPE", "at least one")),
        (("describe", "mpe/spread/random", "--rows", "-1"), ("--rows",)),
        (
            ("describe", "mpe/spread/random", "--out", "/dev/null/x"),
            ("--out", "a folder to write in"),
        ),
        (("describe", "mpe/spread/random", "--roes", "5"), ("--rows",)),
        (("descrbe", "mpe/spread/random"), ("describe",)),
        (("validate", "nowhere", "--task", "mpe/spread"), ("PATH", "nowhere")),
        (("validate", "FOLDER"), ("--task",)),
        (("validate", "FOLDER", "--task", "mpe/spraed"), ("mpe/spread",)),
        (("validate", "EMPTY", "--task", "mpe/spread"), ("manifest.json", "found")),
        (("convert", "FOLDER", "NEW", "--to", "omra"), ("--to", "omar")),
        (("convert", "FOLDER", "NEW", "--to", "pymarl"), ("--to", "only be read")),
        (("convert", "FOLDER", "FOLDER", "--to", "omar"), ("DST", "a new folder")),
        (("convert", "OMAR", "NEW", "--to", "jaxomarl"), ("--task",)),
        (("convert", "FOLDER", "/dev/null/x", "--to", "jaxomarl"), ("DST",)),
        (
            ("convert", "FOLDER", "NEW", "--to", "omar", "--rows", "9"),
            ("--rows", "nothing with a path"),
        ),
        (("diff", "FOLDER", "nowhere"), ("PATH|RECIPE", "nowhere")),
    ],
)
def test_mistakes_are_refused(said, folder, omar, tmp_path, flags, named):
    (tmp_path / "empty").mkdir()
    places = {"FOLDER": folder, "OMAR": omar, "NEW": tmp_path / "new", "EMPTY": tmp_path / "empty"}
    text = said(2, *(places.get(f, f) for f in flags))
    assert all(word in text for word in named), text
    assert not (tmp_path / "new").exists()
