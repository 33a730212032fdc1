"""The planners' table: what is published of them, and that a cell of it is trained and set beside that."""

import math

import pytest

from jaxomarl.algorithms import REGISTRY
from jaxomarl.base import JaxomarlError
from jaxomarl.envs.catalog import make
from jaxomarl.papers import REPRODUCTIONS, measured
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.dof import figures, planners
from jaxomarl.papers.shifted import EvaluationSetting


def test_published_scores_are_those_of_the_sources(shared):
    import csv

    with open(shared / "published" / "madiff_readme.csv") as file:
        rows = [
            r
            for r in csv.DictReader(file)
            if r["task"] == "MPE: Spread" and r["system"].startswith("MADiff")
        ]
    names = {
        "Expert": "expert",
        "Md-Replay": "medium-replay",
        "Medium": "medium",
        "Random": "random",
    }
    wanted = {
        ("mpe/spread", names[r["dataset"]], r["system"].lower()): float(r["mean"]) for r in rows
    }
    found = planners.published()
    assert len(wanted) == 8 and {k: found[k][0] for k in wanted} == wanted
    assert math.isnan(found["mpe/spread", "expert", "madiff-c"][1])
    assert found["mpe/spread", "medium", "madiff-d"] == (64.9, 7.7)


def test_the_commands_table_holds_it():
    assert REPRODUCTIONS["dof-planners"].load() is planners.dof_planners


@pytest.mark.long
def test_a_cell_is_trained_and_set_beside_the_published(tmp_path, cache):
    fields = {
        "horizon": [2], "calls": [1], "sampler": ["ddim"], "depth": [1], "blocks": [1], "policy_width": [8],
        "inverse_width": [8], "policy_batch": [8], "chunk": [2], "policy_steps": [4], "heads": [2], "layers": [1],
        "context": [2],
    }  # fmt: skip
    text = planners.dof_planners(
        Asked(
            [0],
            1.0,
            tmp_path,
            lambda: False,
            ("madiff-c", "madt"),
            (),
            ("random",),
            2,
            200,
            fields,
            None,
            2,
        )
    )
    rows = {
        line.split(" | ")[2].split()[0]: line
        for line in text.splitlines()
        if line.startswith("| mpe/spread")
    }
    assert set(rows) == {"madiff-c", "madt", "madiff-d", "dof-p"}
    assert rows["madiff-c"].rstrip(" |").endswith("4.3") and rows["dof-p"].rstrip(" |").endswith(
        "34.5 ± 5.4"
    )
    assert "nan" not in text and "does not" not in rows["madt"]


# --- Figure 8 ---

SMALL = {
    "horizon": [3], "calls": [2], "sampler": ["ddim"], "depth": [1], "blocks": [1], "policy_width": [8],
    "inverse_width": [8], "policy_batch": [8], "chunk": [2], "policy_steps": [4],
}  # fmt: skip


def small(out, **given):
    return Asked(
        [0, 1],
        1.0,
        out,
        lambda: False,
        episodes=2,
        rows=200,
        **{"overrides": SMALL, "final_episodes": 2, **given},
    )


@pytest.mark.long
def test_a_planner_is_trained_once_and_played_by_each_setting(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(figures, "SAMPLERS", ("ddim",))
    kept = {
        "guidance": ("weight", (9.0,)),
        "calls": ("steps", (1, 2)),
        "replan": ("followed", (1, 2, 4)),
    }
    monkeypatch.setattr(figures, "ACTING", kept)
    monkeypatch.setattr(
        figures, "TRAINED", {"history": ("history", (0, 2, 30)), "horizon": ("ahead", (3, 9))}
    )
    ask = small(
        tmp_path, data=("random",), overrides={**SMALL, "guidance": [1.2, 5.0], "horizon": [3, 2]}
    )
    text = figures.fig8(ask)
    rows = [
        line.strip("| ").split(" | ")
        for line in text.splitlines()
        if line.startswith("| mpe/spread")
    ]
    at = {(panel.partition(": ")[2], x): float(mean) for panel, _, x, mean, *_ in rows}
    own = [("steps", "2"), ("weight", "1.2"), ("followed", "1"), ("history", "0"), ("ahead", "3")]
    others = [("steps", "1"), ("weight", "5"), ("followed", "2"), ("history", "2"), ("ahead", "2")]
    assert set(at) == set(own + others)
    assert (
        len({at[x] for x in own}) == 1
    )  # by what it was trained with it plays its last evaluation again
    assert len({at[x] for x in [own[0], *others]}) == 6
    assert (tmp_path / "curves.png").exists() and (tmp_path / "points.csv").exists()
    kept = {(m.setting, m.seed): m.value for m in measured.read(tmp_path)}
    by_step = [kept["calls=1 history=0 horizon=3 sampler=ddim", seed] for seed in (0, 1)]
    assert len(kept) == 2 * 6 and sum(by_step) / 2 == pytest.approx(at["steps", "1"], abs=0.1)
    made = ["mpe-spread-random", "mpe-spread-random-history-2", "mpe-spread-random-horizon-2"]
    assert sorted(p.name for p in tmp_path.glob("mpe-*")) == made


def test_settings_that_act_alone_are_told_apart_and_kept_within_what_was_trained():
    held = list(figures.acting_settings({"target": (0.5, 0.7)}))
    assert len({(panel, curve, x) for panel, curve, x, _ in held}) == len(held)
    assert [x for panel, _, x, _ in held if panel == "return asked for"] == [0.5, 0.7]
    task = make("mpe/spread")
    files = {EvaluationSetting(task, 2, 1, tuple(changed.items())).file for *_, changed in held}
    assert len(files) == len(held) and EvaluationSetting(task, 2).file not in files
    cfg = REGISTRY["dof-t"].Config(horizon=2, levels=5)
    assert [x for panel, _, x, c in held if figures.fits(cfg, c) and "followed" in panel] == [
        1.0,
        2.0,
    ]
    assert not figures.fits(cfg, {"calls": 6}) and figures.fits(cfg, {"calls": 5})


@pytest.mark.parametrize("sampler", [["consistency"], ["ddpm", "ddim"]])
def test_figure_8_has_both_samplers_anyway_and_no_other(tmp_path, sampler):
    with pytest.raises(JaxomarlError, match="ddpm or ddim for dof-fig8"):
        figures.fig8(small(tmp_path, overrides={"sampler": sampler}))
