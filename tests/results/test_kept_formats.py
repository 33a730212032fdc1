"""Folders of earlier formats: what a release wrote has to be read by every later one.

tests/fixtures/format-N.zip is the OUT folder of

    jaxomarl train bc --task games/bandit --seeds 2 --cfg.policy-width 8 --cfg.policy-steps 20
        --cfg.chunk 10 --cfg.every 1 --final-episodes 8 --rows 100

of the first commit with format N of run.json.
"""

import zipfile
from pathlib import Path

import numpy as np
import pytest

import jaxomarl
from jaxomarl.papers import keep
from jaxomarl.results import stage_health, store, tables
from jaxomarl.training import checkpoint

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures").glob("format-*.zip"))
ACTIONS = {"format-2": {0: [-0.085258, -0.123786], 1: [-0.046489, -0.116297]}}
"""Seed -> what its policy played at ones, when it was written."""


@pytest.fixture(scope="module", params=FIXTURES, ids=lambda path: path.stem)
def folder(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("format") / request.param.stem
    with zipfile.ZipFile(request.param) as archive:
        archive.extractall(out)
    return out


def test_its_policies_act(folder):
    played = {}
    for run in store.find_runs([folder]):
        action = jaxomarl.load(run.path).act(np.ones((2, 1)))
        played[run.info["seed"]] = np.asarray(action)[:, 0]
    assert sorted(played) == [0, 1]
    for seed, action in ACTIONS[folder.name].items():
        np.testing.assert_allclose(played[seed], action, atol=1e-6)


def test_its_checkpoints_are_read(folder):
    """The digest beside a checkpoint is of its arrays: one that reads otherwise is noticed."""
    (checkpoints,) = folder.glob("stages/*/checkpoints")
    (step,) = checkpoint.committed_steps(checkpoints)
    tree = checkpoint.orbax().load(str((checkpoints / str(step)).absolute()))["tree"]
    params = tree["state"]["actor"]["params"]
    assert params["out"]["kernel"].shape == (2, 2, 8, 1)
    assert tree["metrics"]["policy_loss"].shape == (2, 2)


def test_its_tables_are_read(folder):
    runs = store.find_runs([folder])
    (record,) = tables.summary(store.load_returns(runs), runs, store.load_final(runs))
    assert (record.seeds, record.unfinished, record.episodes) == (2, 0, 8)
    kept = {row["system"]: float(row["mean"]) for row in store.read_table(folder / "summary.csv")}
    assert record.mean == pytest.approx(kept["bc"])
    (cell,) = stage_health.cells_of(runs)
    assert [stage.stage for stage in cell.stages] == ["policy"]
    assert len(keep.run_measures(runs[0], "")) >= 2
