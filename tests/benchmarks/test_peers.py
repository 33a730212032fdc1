"""The twins compute what ours computes, the check before each timing sees where they do not, and what is then said.

The twins' tests need PyTorch and are skipped without it; how fast anything is, is asserted nowhere.
"""

import dataclasses
import json
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tyro

from benchmarks import peers, twins_check, updates
from benchmarks.sizes import Size, random_data
from jaxomarl.algorithms import dom2, omsd
from jaxomarl.base import JaxomarlError, Spec
from jaxomarl.optim import Net

TOY = Spec(
    obs_dims=(3, 2), act_dims=(2, 1), state_dim=4, horizon=5
)  # two unlike agents, so that columns are padded
SMALL = {
    f"{part}_{what}": n
    for part in ("critic", "score", "policy")
    for what, n in (("width", 8), ("batch", 4))
}
OMSD = omsd.Config(**SMALL, score_blocks=1, score_embedding=8, chunk=2, normalise=True, beta=1.0)
DOM2 = dom2.Config(
    critic_width=8,
    policy_width=8,
    embedding=8,
    policy_batch=4,
    chunk=2,
    levels=2,
    samples=3,
    dropout=0.3,
)
QUICK = peers.Flags(compile=False, seconds=0.0)
NO_TORCH = "the twins are PyTorch's: pip install -e '.[bench]'"


def toy(stage: str) -> Size:
    """Tiny networks on random data."""
    system, cfg = ("dom2", DOM2) if stage == "dom2" else ("omsd", OMSD)
    return Size("toy", TOY, cfg, random_data(TOY, episodes=3), system)


def of(stage: str, *earlier: SimpleNamespace) -> SimpleNamespace:
    """Our first updates of a stage, and how its twin is made."""
    pytest.importorskip("torch", reason=NO_TORCH)
    size, (make, draws) = toy(stage), peers.needs_torch()[1][stage]
    past = size.past | {x.stage: x.guide.first for x in earlier}  # what updates.untrained makes
    guide = twins_check.Guide(size, peers.STAGES[stage][1], past, draws)
    new = lambda **changed: make(
        TOY, dataclasses.replace(size.cfg, **changed), size.data, past["stats"]
    )
    return SimpleNamespace(stage=stage, size=size, past=past, guide=guide, new=new)


@pytest.fixture(scope="module")
def critic() -> SimpleNamespace:
    return of("critic")


@pytest.fixture(scope="module")
def policy(critic, scores) -> SimpleNamespace:
    return of("policy", critic, scores)


@pytest.fixture(scope="module")
def scores() -> SimpleNamespace:
    return of("scores-conditional")


@pytest.fixture(scope="module")
def dom2_policy() -> SimpleNamespace:
    return of("dom2")


LONG = pytest.param(
    "dom2_policy", marks=pytest.mark.long
)  # its networks take half a minute to compile
ALL = ["critic", "scores", "policy", LONG]
WRONG = {
    "critic": {
        "gamma": 0.9,
        "expectile": 0.8,
        "critic_polyak": 0.01,
        "critic_lr": 3.1e-4,
        "reward": "first",
    },
    "scores": {"score_lr": 3.1e-4, "score_decay": 0.1, "score_steps": 10, "normalise": False},
    "policy": {"beta": 1.01, "policy_lr": 3.1e-4, "weighting": "score", "policy_steps": 10},
    "dom2_policy": {
        "gamma": 0.9,
        "eta": 3.0,
        "clip": 1.0,
        "penalty": 1.1,
        "polyak": 0.02,
        "reward": "team",
    },
}
CASES = [
    pytest.param(name, {field: value}, marks=[pytest.mark.long] if name == "dom2_policy" else [])
    for name, wrong in WRONG.items()
    for field, value in wrong.items()
]


@pytest.mark.parametrize("name", ALL)
def test_a_twin_follows_ours_in_losses_and_in_every_array(name, request):
    stage = request.getfixturevalue(name)
    found = stage.guide.apart(stage.new())
    assert len(found) == twins_check.FOLLOWED
    for differences in found:
        assert max(differences.values()) < twins_check.LOSS, differences
        arrays = [name for name in differences if "." in name]
        assert len(arrays) == len(jax.tree.leaves(stored(stage))) < len(differences)


def stored(stage: SimpleNamespace) -> list:
    """Parameters and targets of our state, without what optimisers keep."""
    nets = jax.tree.leaves(stage.guide.first, is_leaf=lambda x: isinstance(x, Net))
    return [(net.params, net.target) for net in nets]


@pytest.mark.parametrize(("name", "changed"), CASES)
def test_a_wrong_constant_is_caught(name, changed, request):
    stage = request.getfixturevalue(name)
    with pytest.raises(JaxomarlError, match=r"toy.*relative difference of at most"):
        twins_check.followed(stage.guide, stage.new(**changed), "toy")


@pytest.mark.parametrize("name", ["scores", "policy", LONG])
def test_padding_that_counts_is_caught(name, request):
    stage = request.getfixturevalue(name)
    twin = stage.new()
    twin.mask = twin.mask * 0 + 1
    with pytest.raises(JaxomarlError, match="relative difference"):
        twins_check.followed(stage.guide, twin, "toy")


def test_without_our_dropout_scores_come_out_apart(scores):
    updates_of_ours = scores.guide.updates
    assert all(len(noise.drop) == 1 for _, noise, *_ in updates_of_ours)
    kept = np.concatenate([noise.drop[0].numpy().ravel() for _, noise, *_ in updates_of_ours])
    assert np.unique(kept) == pytest.approx([0.0, 1 / 0.9])
    without = [
        (index, noise._replace(drop=False), *ours) for index, noise, *ours in updates_of_ours
    ]
    other = SimpleNamespace(**{**vars(scores.guide), "updates": without})
    assert twins_check.Guide.apart(other, scores.new())[0]["score_loss"] > twins_check.LOSS


def test_settings_that_a_twin_has_not_are_refused(critic, policy):
    with pytest.raises(JaxomarlError, match="critic_policy"):
        critic.new(critic_policy=True)
    with pytest.raises(JaxomarlError, match="weighting"):
        policy.new(weighting="delta")


@pytest.mark.parametrize("name", ALL)
def test_a_twin_s_own_minibatches_and_noise_train_it(name, request):
    stage = request.getfixturevalue(name)
    twin = stage.new()
    twin.load(stage.guide.first, stage.past)
    modules = [module for part in twin.learned.values() for module in part.modules]
    parameters = lambda: [p.detach().clone() for module in modules for p in module.parameters()]
    before = parameters()
    twin.step()
    after = parameters()
    assert all(x.isfinite().all() for x in after)
    assert sum(bool((x != y).any()) for x, y in zip(before, after, strict=True)) > len(after) / 2


def test_nothing_is_timed_where_the_twin_is_apart(critic, monkeypatch):
    monkeypatch.setattr(peers, "Guide", lambda *of: critic.guide)
    monkeypatch.setattr(twins_check, "LOSS", -1.0)
    monkeypatch.setattr(peers.Peer, "start", lambda self: pytest.fail("timed all the same"))
    with pytest.raises(JaxomarlError, match=r"toy, critic, eager: .* nothing was timed"):
        peers.measure(critic.size, "critic", (1,), QUICK)


def test_what_torch_compile_cannot_do_is_a_line(critic, monkeypatch):
    def fail(self):
        raise RuntimeError("no compiler\nand much more")

    monkeypatch.setattr(peers, "Guide", lambda *of: critic.guide)
    monkeypatch.setattr("benchmarks.twins.Twin.compile", fail)
    found, reason = peers.peers(critic.size, "critic", critic.past, peers.Flags())
    assert [x.program for x in found] == ["eager"] and reason == "RuntimeError: no compiler"


def test_a_measured_stage_has_a_line_for_each_program(critic, monkeypatch):
    monkeypatch.setattr(peers, "Guide", lambda *of: critic.guide)
    monkeypatch.setattr(updates, "SAMPLE", 0.001)
    need = updates.Cell.of(critic.size, 0, 2, critic.past).need / 2**30
    flags = dataclasses.replace(QUICK, max_gib=1.5 * need)
    lines = json.loads(json.dumps(peers.measure(critic.size, "critic", (2, 64), flags)))
    assert [(x["program"], x["runs"]) for x in lines] == [("eager", 1), ("ours", 2), ("ours", 64)]
    eager, ours, skipped = lines
    assert eager["difference"] < twins_check.LOSS and "--max-gib" in skipped["skipped"]
    assert ours["eager_ratio"] == pytest.approx(
        2 * eager["seconds_per_update"] / ours["seconds_per_update"]
    )
    assert all(x["samples"] >= updates.ROUNDS and x["threads"] >= 1 for x in (eager, ours))
    rows = peers.table(lines).splitlines()
    assert (
        len(rows) == 4
        and len({row.count("|") for row in rows}) == 1
        and "skipped: needs about" in rows[3]
    )


def test_a_row_has_ours_beside_both_twins():
    one = {"size": "game", "stage": "critic", "threads": 2, "seconds_per_update_low": 1e-3}
    line = lambda program, seconds, **more: {
        **one, "program": program, "runs": 1, "seconds_per_update": seconds, "seconds_per_update_high": 0.9, **more
    }  # fmt: skip
    ours = line("ours", 8e-3, eager_ratio=12.0) | {"runs": 16}
    failed = {**one, "program": "compile", "runs": 1, "skipped": "no compiler"}
    row = peers.table([line("eager", 6e-3), failed, ours]).splitlines()[2]
    cells = "8.00 | 1.00 to 900 | 0.500 | 6.00 | 1.00 to 900 | failed: no compiler | 12.0 |  | 2 |"
    assert row == f"| game | critic | 16 | {cells}"


def test_a_sample_of_a_twin_is_time_per_update(monkeypatch):
    clock, done = iter((10.0, 22.0)), []
    monkeypatch.setattr(peers.time, "perf_counter", lambda: next(clock))
    peer = peers.Peer("eager", SimpleNamespace(step=lambda: done.append(1)), 0.0, calls=3)
    assert peer.sample() == 4.0 and len(done) == 3


def test_the_distance_of_arrays_is_relative_to_how_far_they_moved():
    before = np.ones(100, np.float32)
    ours = before + np.float32(0.01)
    assert twins_check.distance(ours.copy(), ours, before) == 0.0
    assert (
        twins_check.distance(np.nextafter(ours, np.float32(2)), ours, before) == 0.0
    )  # what an update may round
    assert twins_check.distance(before + np.float32(0.011), ours, before) == pytest.approx(
        0.1, rel=0.01
    )
    assert twins_check.distance(ours, before, before) > 1e6  # ours did not move at all


def test_without_pytorch_there_is_one_clear_line(monkeypatch, capsys):
    # tyro looks for it too
    monkeypatch.setattr(tyro, "cli", lambda *of, **more: peers.Flags())
    monkeypatch.setitem(sys.modules, "torch", None)
    assert peers.main([]) == 2
    assert "error:" in (said := capsys.readouterr().err) and "pip install -e '.[bench]'" in said


@pytest.mark.parametrize(
    "flags", [{"stages": ("scores",)}, {"runs": (0,)}, {"runs": ()}, {"wide_runs": (-1,)}]
)
def test_flags_that_mean_nothing_are_refused(flags):
    with pytest.raises(JaxomarlError, match="--"):
        peers.check(peers.Flags(**flags))
