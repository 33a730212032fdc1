"""CODA's steering curve on a small task: the pull makes windows likelier, and what cannot be drawn is refused."""

import numpy as np
import pytest

from jaxomarl.base import JaxomarlError
from jaxomarl.papers import REPRODUCTIONS
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.coda import steering

TINY = {
    "generator_steps": [150], "generator_batch": [32], "generator_width": [8], "augment_horizon": [3],
    "augment_levels": [8], "augment_order": [1], "augment_microbatch": [32],
}  # fmt: skip


def asked(out, **more):
    return Asked([0, 1], 0.03, out, lambda: False, tasks=("mpe/spread",), rows=2000, **more)


@pytest.mark.long
def test_windows_are_likelier_where_a_policy_pulls(tmp_path):
    text = REPRODUCTIONS["coda-steering"].load()(asked(tmp_path, data=("random",), overrides=TINY))
    table = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")][
        2:
    ]
    lines = {cells[0]: cells for cells in table}
    assert set(lines) == {"untrained", "expert"} and "32 windows of 3 steps" in text
    for cells in lines.values():
        mean = np.array([float(c.split(" ±")[0]) for c in cells[1:-1]])
        assert mean.shape == (len(steering.LAMBDAS),) and mean[0] < 0
        assert (
            mean.max() > 0.7 * mean[0] and float(cells[-1]) == steering.LAMBDAS[mean.argmax()] > 0
        )
    assert (tmp_path / "steering.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"data": ("random", "expert")}, "--data"),
        ({"systems": ("bc",)}, "--systems"),
        ({"overrides": {"policy_steps": [5]}}, "--cfg.policy-steps"),
        ({"overrides": {**TINY, "augment_horizon": [30]}}, "--cfg.augment-horizon"),
    ],
)
def test_what_it_refuses(tmp_path, more, word):
    with pytest.raises(JaxomarlError, match=word):
        steering.coda_steering(asked(tmp_path, **{"data": ("random",), **more}))


def test_a_task_without_behaviours_is_refused(tmp_path):
    with pytest.raises(JaxomarlError, match="ships with behaviours"):
        steering.coda_steering(Asked([0], 0.01, tmp_path, lambda: False, tasks=("games/bandit",)))
