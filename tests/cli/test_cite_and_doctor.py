"""`cite` names the papers of the systems in a folder; `doctor` says what is here and what is missing."""

import importlib.util
import re

import pytest

from jaxomarl.algorithms import REGISTRY
from jaxomarl.cli import boxes, cite, commands, doctor
from jaxomarl.results import store


def runs(folder, *systems):
    for seed, system in enumerate(systems):
        info = {"system": system, "task": "t", "data": "d", "config": "c", "cfg": {}, "swept": {}}
        store.write_json(folder / system / "run.json", {**info, "seed": seed, "final_stage": "p"})


def test_the_papers_of_the_systems_in_a_folder(tmp_path, capsys):
    runs(tmp_path, "dom2", "omsd", "brpo-ind")
    assert commands.run("cite", [str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "\ndom2: Li et al. 2023" in text and text.startswith("brpo-ind: ")
    assert "@misc{li2023learning,\n  author = {Li and others}," in text
    assert text.count("Sequential Score Decomposition}},") == 1, "two systems of one paper"
    assert "@software{jaxomarl," in text and "iql:" not in text
    keys = re.findall(r"@\w+\{([^,]+),", text)
    assert len(keys) == len(set(keys)) == 4  # SRPO stands behind OMSD
    assert commands.run("cite", [str(tmp_path / "dom2" / "nothing")]) == 2


@pytest.mark.parametrize("name", REGISTRY)
def test_every_system_has_a_paper_to_cite(name):
    for reference in cite.references(boxes.box(name).paper):
        assert reference.title[0].isupper() and '"' not in reference.title
        assert re.fullmatch(r"[a-z0-9]+", reference.key)
    named = '"' in boxes.box(name).paper
    assert bool(cite.references(boxes.box(name).paper)) == named


def test_a_doctor_says_what_is_missing(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "h5py" else find(name)
    )
    assert commands.run("doctor", []) == 0
    text = capsys.readouterr().out
    assert "  h5py, for data in HDF5: pip install 'jaxomarl[data]'\n" in text
    assert "cpu 0: cpu" in text and "mujoco.mjx there" in text
    titles = re.findall(r"^(\w+):$", text, re.MULTILINE)
    assert titles == ["versions", "devices", "engines", "renderers", "caches", "missing"]
    assert commands.run("doctor", ["--missing"]) == 0
    assert capsys.readouterr().out.strip() == "\n".join(doctor.missing())
    monkeypatch.setattr(doctor, "RENDERERS", {"none": "libnothing.so.0"})
    assert "plain drawings" in "\n".join(doctor.renderers())
