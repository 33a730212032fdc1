"""What every system must keep to, as functions of a trial: each raises AssertionError where it is not so."""

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import chex
import jax
import mixed
import numpy as np
from trial import LEARNING_NOTHING, LIBRARIES, MOVED, SEEDS, Trial, on_host

from jaxomarl.base import Stage
from jaxomarl.data.dataset import content_hash, pads_are_zero
from jaxomarl.numerics import rounded
from jaxomarl.optim import Net, first_moments
from jaxomarl.training.library import Identity, StageCache
from jaxomarl.training.runner import Interrupted

CLOSE = 1e-5


def row(tree: Any, r: int) -> Any:
    """Run r of a tree."""
    return jax.tree.map(lambda x: on_host(x)[r], tree)


def named(tree: Any) -> dict[str, np.ndarray]:
    """Every array of a tree by its path; typed keys as their data."""
    raw = lambda x: (
        jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    )
    return {
        jax.tree_util.keystr(k): np.asarray(raw(x))
        for k, x in jax.tree_util.tree_leaves_with_path(tree)
    }


def same(found: Any, wanted: Any, what: str, rtol: float = 0.0) -> None:
    """Equal bits, or close: to `rtol` of each number, or of the array's largest or of one.

    The latter because sums cancel, and Adam makes a whole step of a gradient that is nothing but rounding.
    """
    found, wanted = named(found), named(wanted)
    assert found.keys() == wanted.keys(), f"{what}: other arrays"
    for name, x in found.items():
        y = wanted[name]
        assert (x.shape, x.dtype) == (y.shape, y.dtype), (
            f"{what}{name}: {x.shape} {x.dtype} is not {y.shape} {y.dtype}"
        )
        scale = rtol * np.max(np.abs(y), initial=1.0, where=np.isfinite(y)) if rtol else 0.0
        close = np.isclose(x, y, rtol=rtol, atol=scale, equal_nan=True)
        assert close.all(), f"{what}{name}: {x[~close][:3]} is not {y[~close][:3]}"


def histories(trained: Any) -> dict[str, Any]:
    return {"state": trained.state, "metrics": trained.metrics, "evaluations": trained.evaluations}


# --- by tracing ---


def init_holds_arrays_only(trial: Trial) -> None:
    """Two pipelines built apart give states of one structure, so it holds no function and no Python number."""
    for index, stage in enumerate(trial.stages):
        state = trial.traced[index]["init"].out
        again = jax.eval_shape(
            lambda key, past, index=index: trial.make(trial.cfg)[index].algorithm.init(
                key, past, trial.data
            ),
            jax.random.key(0),
            trial.past_shapes(index),
        )
        chex.assert_trees_all_equal_structs(state, again)
        weak = [
            jax.tree_util.keystr(k)
            for k, x in jax.tree_util.tree_leaves_with_path(state)
            if x.weak_type
        ]
        assert not weak, f"{stage.name}: {weak} are Python numbers; make them arrays with a dtype"


def facts(tree: Any) -> Any:
    """What of a tree must not change."""
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


def update_keeps_types(trial: Trial) -> None:
    """An update, and a refresh, keep a state's structure, shapes and dtypes; metrics are scalars."""
    for stage, t in zip(trial.stages, trial.traced, strict=True):
        after, metrics = t["update"].out
        wanted = facts(t["init"].out)
        assert facts(after) == wanted, f"{stage.name}: update changes {wanted} to {facts(after)}"
        if "refresh" in t:
            assert facts(t["refresh"].out) == wanted, f"{stage.name}: refresh changes types"
        assert metrics and all(m.shape == () and m.dtype == np.float32 for m in metrics.values()), (
            f"{stage.name}: {metrics}"
        )


def an_update_has_half_the_bits_inside(trial: Trial) -> None:
    """As below, of updates alone."""
    half_the_bits_stay_inside(trial, updates=True)


def half_the_bits_stay_inside(trial: Trial, updates: bool = False) -> None:
    """In bfloat16 hidden layers multiply in it, and a state, its metrics and what a refresh makes stay as they are."""
    for index, (stage, t) in enumerate(zip(trial.stages, trial.traced, strict=True)):
        with jax.default_matmul_precision("bfloat16"):
            if updates:
                halved = {"update": trial.trace_update(index)}
            else:
                halved = trial.trace(index, trial.cfg)
        assert "bf16" not in t["update"].text, f"{stage.name}: bfloat16 where nobody asked for it"
        assert "bf16" in halved["update"].text, (
            f"{stage.name}: its networks are not made of `dense`"
        )
        for name, program in halved.items():
            assert facts(program.out) == facts(t[name].out), (
                f"{stage.name}: {name} gives other types in bfloat16"
            )


def declared_fields_are_true(trial: Trial) -> None:
    """Where a change of the config leaves a stage's identity as it was, it leaves its programs and lengths too."""
    known = {f.name for f in dataclasses.fields(trial.cfg)}
    for index, stage in enumerate(trial.stages):
        fields, programs = trial.fields(stage), trial.traced[index]
        assert fields <= known, (
            f"{stage.name}: declares {fields - known}, which the config does not have"
        )
        read = set().union(*(t.reads for t in programs.values()))
        reached = {f for f in known if f"['cfg'].{f}" in read}
        assert reached <= fields, f"{stage.name}: {reached - fields} reach it and are not declared"
        for before in trial.stages[:index]:
            if any(name.startswith(f"['past']['{before.name}']") for name in read):
                missing = trial.fields(before) - fields
                assert not missing, (
                    f"{stage.name} reads {before.name} and does not declare its {missing}"
                )
        changed = trial.changed_but(
            fields | {f for f in known - fields if is_length(trial, index, f)}
        )
        if changed == trial.cfg:  # nothing is left that it may not depend on
            continue
        if trial.data is not None:
            prepared = trial.prepared(changed)
            assert content_hash(prepared) == content_hash(trial.data), (
                f"{stage.name}: other data for undeclared fields"
            )
        other = trial.make(changed)[index]
        assert lengths(other) == lengths(stage), (
            f"{stage.name}: undeclared fields change its lengths"
        )
        for name, t in trial.trace(index, changed).items():
            assert t.text == programs[name].text, (
                f"{stage.name}: undeclared static fields change {name}: {changed}"
            )


def identity(trial: Trial, stage: Stage, cfg: Any) -> Identity:
    facts = {"task": trial.task.name, "episodes": trial.task.episodes, **rounded()}
    return Identity.of(stage, [cfg], [0], facts)


def is_length(trial: Trial, index: int, field: str) -> bool:
    """Whether a whole number alone makes the stage another one, as its steps, chunk and evaluations do."""
    if type(getattr(trial.cfg, field)) is not int:
        return False
    changed, stages = trial.with_another(field)
    return identity(trial, stages[index], changed) != identity(
        trial, trial.stages[index], trial.cfg
    )


def lengths(stage: Stage) -> tuple[int, ...]:
    """What fixes the shapes of a stage's histories; only stages that act are evaluated."""
    return (stage.steps, stage.chunk, *([stage.every] if stage.algorithm.act else []))


def identity_follows_fields(trial: Trial) -> None:
    """Another value of a declared field, or another seed, is another stage."""
    for field in set().union(*(trial.fields(s) for s in trial.stages)):
        if trial.with_another(field) is None:
            continue
        changed, stages = trial.with_another(field)
        for stage, other in zip(trial.stages, stages, strict=True):
            if field in trial.fields(stage):
                one, two = identity(trial, stage, trial.cfg), identity(trial, other, changed)
                assert one != two, f"{stage.name}: {field} is forgotten"
    for stage in trial.stages:
        rows = Identity.of(stage, [trial.cfg] * 2, [0, 1], {}).rows
        assert rows[0] != rows[1], f"{stage.name}: the seed is forgotten"


def shared_stages_agree(trials: list[Trial]) -> None:
    """Stages that systems share (owner "") have the same fields and the same programs, whoever trains them."""
    first: dict[str, tuple[Trial, set[str], dict]] = {}
    for trial in trials:
        for stage, programs in zip(trial.stages, trial.traced, strict=True):
            if stage.owner:
                continue
            other, fields, wanted = first.setdefault(
                stage.name, (trial, trial.fields(stage), programs)
            )
            who = f"{stage.name} of {trial.name} and {other.name}"
            assert trial.fields(stage) == fields, f"{who}: other fields"
            for name, t in programs.items():
                assert t.text == wanted[name].text, f"{who}: {name} differs"


# --- by running ---


def finite(trial: Trial) -> None:
    for stage in trial.stages:
        chex.assert_tree_all_finite(named(histories(trial.base.trained[stage.name])))
    assert not any(p.bad for p in trial.base.progress)


def traced_once(trial: Trial) -> None:
    """An update is traced for its shapes and for its program: however many runs, values and chunks there are."""
    for outcome in (trial.base, alone(trial)):
        assert outcome.traces
        for name, count in outcome.traces.items():
            assert count <= 2, (
                f"{name}: update was traced {count} times for {len(outcome.past['stats'][0])} runs"
            )


@functools.cache
def alone(trial: Trial) -> Any:
    """The second run of the base, by itself and mapped."""
    return trial.run([trial.cfgs[MOVED]], SEEDS[MOVED : MOVED + 1], LIBRARIES["alone"], how="map")


def same_when_alone(trial: Trial) -> None:
    """Run r of R is the run alone, vmapped or mapped."""
    for name, trained in alone(trial).trained.items():
        beside = trial.base.trained[name]
        assert beside.facts.get("runs", len(SEEDS)) == len(SEEDS)
        same(
            row(histories(trained), 0), row(histories(beside), MOVED), f"{trial.name} {name}", CLOSE
        )


def same_beside_others(trial: Trial) -> None:
    """A run is what it was when its neighbours, and its place among them, are others."""
    turned = trial.run(trial.cfgs[::-1], SEEDS[::-1], LIBRARIES["turned"])
    for name, trained in turned.trained.items():
        back = jax.tree.map(lambda x: on_host(x)[::-1], histories(trained))
        same(back, histories(trial.base.trained[name]), f"{trial.name} {name}", CLOSE)


def padded_observations_do_not_count(trial: Trial) -> None:
    """Numbers in padded columns of observations, of the data or when acting, change nothing."""
    junk_does_not_count(trial, "obs")
    for stage in (s for s in trial.stages if s.algorithm.act):
        play, seen = trial.player(stage), observations(trial)
        assert (play(seen + 3.0 * (1 - trial.spec.obs_mask)) == play(seen)).all(), (
            f"{stage.name}: actions change"
        )


def padded_actions_do_not_count(trial: Trial) -> None:
    """Numbers in padded columns of the data's actions change nothing."""
    junk_does_not_count(trial, "action")


def junk_does_not_count(trial: Trial, block: str) -> None:
    if trial.data is None:
        return
    junk = mixed.junk(trial.raw, block, trial.spec)
    assert pads_are_zero(trial.raw, trial.spec) and not pads_are_zero(junk, trial.spec)
    found = trial.run(trial.cfgs, SEEDS, LIBRARIES[block], data=trial.prepared(trial.cfg, junk))
    for name, trained in found.trained.items():
        same(histories(trained), histories(trial.base.trained[name]), f"{trial.name} {name}", 1e-7)


def actions_are_padded_with_zeros(trial: Trial) -> None:
    for stage in (s for s in trial.stages if s.algorithm.act):
        action = trial.player(stage)(observations(trial))
        assert action.any() and not (action * (1 - trial.spec.act_mask)).any(), (
            f"{stage.name}: padded columns"
        )


def observations(trial: Trial) -> np.ndarray:
    """[3, N, O] of three steps, pads zero."""
    shape = (3, *trial.spec.obs_mask.shape)
    return np.random.default_rng(5).normal(size=shape).astype(np.float32) * trial.spec.obs_mask


def acts_on_what_it_declares(trial: Trial) -> None:
    """Another o_j in all steps leaves a_i bitwise the same for i != j, unless the algorithm declares `centralised`."""
    for stage in trial.stages:
        if not stage.algorithm.act:
            continue
        play, seen = trial.player(stage), observations(trial)
        action, heard = play(seen), []
        for j in range(trial.spec.agents):
            other = seen.copy()
            other[:, j] = -2.0 * other[:, j] + trial.spec.obs_mask[j]
            differs = (play(other) != action).any(axis=(0, 2))
            heard += [(i, j) for i in np.flatnonzero(differs) if i != j]
        if stage.algorithm.centralised:
            assert heard, (
                f"{stage.name}: declares itself centralised, and acts on own observations alone"
            )
        else:
            assert not heard, (
                f"{stage.name}: agents act on others' observations, (who, whose): {heard}"
            )


def past_is_never_changed(trial: Trial) -> None:
    for name, state in trial.base.when_finished.items():
        chex.assert_trees_all_equal(named(trial.base.past[name]), named(state), strict=True)


def parameters_move(trial: Trial) -> None:
    """Every parameter with a gradient moves, its target follows, and nothing moves at a rate of zero."""
    for stage in trial.stages:
        first, last = trial.first_states[stage.name], trial.base.past[stage.name]
        pairs = list(zip(networks(first), networks(last), strict=True))
        assert pairs, f"{stage.name}: no optim.Net in its state"
        for before, after in (row(pair, 0) for pair in pairs):
            gradient = named(first_moments(after))
            start, end = named(before.params), named(after.params)
            for leaf, x in start.items():
                pulled = np.abs(gradient.get(leaf, np.ones_like(x))) > 1e-6
                still = pulled & (x == end[leaf])
                assert not still.any(), (
                    f"{stage.name}{leaf}: {still.sum()} parameters have a gradient and do not move"
                )
            assert any((x != end[leaf]).any() for leaf, x in start.items()), (
                f"{stage.name}: no parameter moves"
            )
            follower, followed = named(before.target), named(after.target)
            for leaf, x in follower.items():
                moved = (start[leaf] != end[leaf]).any()
                assert not moved or (x != followed[leaf]).any(), (
                    f"{stage.name}{leaf}: the target does not follow"
                )
    if trial.own_rates:
        name = trial.stages[-1].name
        for before, after in zip(
            networks(trial.first_states[name]), networks(trial.base.past[name]), strict=True
        ):
            same(
                row(after.params, LEARNING_NOTHING),
                row(before.params, LEARNING_NOTHING),
                f"{name} at rate 0",
            )


def networks(state: Any) -> list[Net]:
    is_net = lambda x: isinstance(x, Net)
    return [x for x in jax.tree.leaves(state, is_leaf=is_net) if is_net(x)]


def resumes_exactly(trial: Trial, index: int, after: int, folder: Path) -> None:
    """A stage that was stopped after some chunks and started again ends as if it had never been stopped."""
    stage = trial.stages[index]
    begun = lambda: sum(len(path.read_text().splitlines()) for path in folder.glob("*/executed"))

    def library() -> StageCache:
        fresh = StageCache(folder)
        others = {identity(trial, s, trial.cfg).kind for s in trial.stages if s is not stage}
        fresh.here = {k: [*v] for k, v in LIBRARIES["base"].here.items() if k in others}
        return fresh

    assert trial.base
    stopped = False
    try:
        trial.run(trial.cfgs, SEEDS, library(), stopped=lambda: begun() >= after)
    except Interrupted:
        stopped = True
    assert stopped, "the run was not stopped"
    found = trial.run(trial.cfgs, SEEDS, library())
    chunks = {p.step // stage.chunk for p in found.progress if p.stage == stage.name}
    assert chunks == set(range(after + 1, stage.steps // stage.chunk + 1)), (
        f"{stage.name}: the wrong chunks: {chunks}"
    )
    same(
        histories(found.trained[stage.name]),
        histories(trial.base.trained[stage.name]),
        f"{trial.name} {stage.name}",
    )


def nan_stays_in_its_run(trial: Trial) -> None:
    """A run whose settings are NaN is named, and the others are bitwise what they were without it."""
    cfgs = [*trial.cfgs]
    cfgs[MOVED] = trial.with_traced(lambda k, v: math.nan)
    found = trial.run(cfgs, SEEDS, LIBRARIES["nan"])
    for name, trained in found.trained.items():
        for r in (r for r in range(len(SEEDS)) if r != MOVED):
            wanted = row(histories(trial.base.trained[name]), r)
            same(row(histories(trained), r), wanted, f"{trial.name} {name}, run {r}")
    last = found.past[trial.stages[-1].name]
    assert any(np.isnan(x[MOVED]).any() for x in named(last).values()), (
        "the NaN did not arrive: nothing was tested"
    )
    bad = [line for p in found.progress if p.stage == trial.stages[-1].name for line in p.bad]
    assert bad and all(line.startswith(f"seed {SEEDS[MOVED]}: ") for line in bad), bad


def shared_stages_are_trained_once(trial: Trial) -> Any:
    """Two values of a field that reaches the last stage alone: the stages before it are trained once per seed.

    Returns the two-value run, which equals two runs of one value each.
    """
    library = StageCache()
    both, (field, values) = trial.sweep(library), trial.swept
    for stage in trial.stages:
        runs = len(SEEDS) * (2 if stage is trial.stages[-1] else 1)
        (batch,) = library.here[identity(trial, stage, trial.cfg).kind]
        assert (len(batch.rows), batch.facts["runs"]) == (runs, runs), (
            f"{stage.name}: {batch.facts}"
        )
        assert batch.facts["updates_executed"] == stage.steps, f"{stage.name}: {batch.facts}"
    for v, cfg in enumerate(values):
        one = trial.run([cfg] * len(SEEDS), SEEDS, StageCache(), env=False)
        for stage in trial.stages:
            chosen = slice(v * len(SEEDS), (v + 1) * len(SEEDS))
            mine = jax.tree.map(lambda x, at=chosen: on_host(x)[at], both.past[stage.name])
            same(one.past[stage.name], mine, f"{trial.name} {stage.name}, {field} {v}", CLOSE)
    return both


TRACED = (
    init_holds_arrays_only,
    update_keeps_types,
    declared_fields_are_true,
    identity_follows_fields,
)
"""Checks that only trace: no program is compiled."""
OF_STATES = (
    finite, actions_are_padded_with_zeros, padded_observations_do_not_count, padded_actions_do_not_count,
    acts_on_what_it_declares, parameters_move,
)  # fmt: skip
"""Checks that train the tiny system, and ask for states, metrics and actions alone."""
RUN = (*OF_STATES, same_beside_others, past_is_never_changed)
"""Checks that train the tiny system through the runner, four runs side by side."""
ALONE = (same_when_alone, traced_once)
"""Checks that compile every program once more, for one run."""
