"""DoF-Policy's table: which mixers it sweeps, and what it stands beside."""

import pytest

from jaxomarl.papers import REPRODUCTIONS, cells
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.dof import policies
from jaxomarl.papers.omsd import table2


@pytest.fixture
def asked(monkeypatch):
    """What the table is asked for, without training it."""
    seen = []
    monkeypatch.setattr(cells, "comparison_table", lambda *args: seen.append(args) or "")
    return seen


def test_dof_policy_is_swept_over_its_mixers_and_may_act_centrally(asked, tmp_path):
    REPRODUCTIONS["dof-policies"].load()(
        Asked([0], 1.0, tmp_path, lambda: False, overrides={"chunk": [5]})
    )
    ((given, default, printed, *_),) = asked
    assert given.overrides == {
        "chunk": [5],
        "noise_mixer": ["concat", "wconcat", "atten"],
        "execution": ["central"],
    }
    assert default[0] == ("bc", "dof-p", "ind-diffusion", "dom2", "omsd")
    assert printed["mpe/spread", "expert", "dof-p"] == (126.3, 3.1)
    assert (
        printed["mpe/spread", "medium", "omsd"]
        == table2.published()["mpe/spread", "medium", "omsd"]
    )


def test_a_mixer_that_was_asked_for_is_the_only_one(asked, tmp_path):
    policies.dof_policies(
        Asked([0], 1.0, tmp_path, lambda: False, overrides={"noise_mixer": ["wconcat"]})
    )
    assert asked[0][0].overrides == {"noise_mixer": ["wconcat"]}
