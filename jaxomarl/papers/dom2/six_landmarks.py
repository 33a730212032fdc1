"""DOM2's 3 agents and 6 landmarks: Table 7's returns, Table 8's good policies, and joint solutions.

K = 1 rolls out episodes from different starts, those of the final evaluation. K = 10 rolls out ten
from each of the first tenth of these starts, and takes the best. The ten have positions and hidden
landmarks in common and differ in the policy's own draws: a policy of one joint solution gains
nothing by it.

A good episode returns more than 400 in the standard environment. A joint solution is which landmark
each agent ends at, three different ones within touch. The paper shows colours (Figure 10) and gives
no rule.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxomarl.api import render
from jaxomarl.api.plan import Group
from jaxomarl.api.session import Results
from jaxomarl.base import Task
from jaxomarl.envs.catalog import make
from jaxomarl.envs.mpe.physics import Scene, distance
from jaxomarl.papers import cells, comparison, keep, measured, points, shifted
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.comparison import Published
from jaxomarl.papers.dom2 import tables
from jaxomarl.papers.measured import Measure
from jaxomarl.papers.shifted import EvaluationSetting
from jaxomarl.paths import folder_name
from jaxomarl.results import curves, figures
from jaxomarl.results.curves import Attempts
from jaxomarl.results.tables import Record

TASK = "mpe/six"
AGENTS = 3
REACH = 0.2
"""Radius of an agent plus that of a landmark."""
GOOD = 400.0
"""Return above which an episode is good."""
TRIES = 20
"""Episodes of which the good ones are counted."""
METRICS = ("good starts", "good from one start", "ways")
"""The counts of a run, as evidence names them."""
SHOWN = 5
"""Attempts in the picture."""
HIDDEN = "hidden=3"
BEST = 10
NOTES = (
    "Data: ours are made by this package's own behaviours, or named by `--data`; the paper's are "
    "its authors' own.",
    "Reward: the paper prints no formula; ours is cooperative navigation's, with the six landmarks "
    "on the unit circle.",
    "Settings: the paper gives no eta and no thresholds for this task; ours are the defaults "
    "unless set.",
)

Counts = list[list[int]]
"""Good episodes of different starts, good ones of one start, joint solutions; each by run."""


# --- joint solutions ---


def solution(scene: Scene) -> Float[Array, ""]:
    """A number for who is at which landmark, in base 6 with agent 0 first.

    It is -1 unless all agents are at landmarks, and at different ones.
    """
    d = distance(scene.pos[:AGENTS, None], scene.pos[None, AGENTS:])
    d = jnp.where(scene.seen > 0, d, jnp.inf)
    at = d.argmin(axis=1)
    apart = (at[:, None] == at[None]).sum() == AGENTS
    within_reach = (d.min(axis=1) < REACH).all()
    number = (at * 6 ** jnp.arange(AGENTS - 1, -1, -1)).sum()
    return jnp.where(apart & within_reach, number, -1).astype(jnp.float32)


def with_solution(task: Task) -> Task:
    """The task with `solution` among its infos."""

    def add(scene: Scene, now: Any) -> tuple[Scene, Any]:
        return scene, now._replace(info={**now.info, "solution": solution(scene)})

    env = task.env
    reset = lambda key: add(*env.reset(key))
    step = lambda key, scene, action: add(*env.step(key, scene, action))
    return task._replace(env=env._replace(reset=reset, step=step))


def distinct(returns: Float[np.ndarray, "R K"], solutions: Float[np.ndarray, "R K"]) -> list[int]:
    """How many joint solutions are among each run's good episodes."""
    kept = (returns > GOOD) & (solutions >= 0)
    return [len(set(s[k])) for s, k in zip(solutions, kept, strict=True)]


# --- Table 7 ---


def table7(asked: Asked) -> str:
    """Table 7: standard with K = 1, and three landmarks hidden with K = 1 and K = 10."""
    tasks = asked.tasks or (TASK,)
    systems = asked.systems or tables.SYSTEMS
    trained = []
    records = []
    for task in tasks:
        for quality in tables.qualities(asked, task):
            cell, results = cells.train(asked, systems, task, quality)
            records += cell.records
            hidden = make(shifted.with_parameter(task, HIDDEN))
            for attempts in (1, BEST):
                # as many episodes either way
                starts = max(1, shifted.final_episodes(results) // attempts)
                setting = EvaluationSetting(hidden, starts, attempts)
                records += shifted.setting_records(results, setting)
                measured.add_measures(asked.out, shifted.setting_measures(results, setting))
            trained.append(cell)
            # the results hold the data
            del results
    notes = [*NOTES, tables.SHIFTED, *tables.absent(asked, tasks)]
    records.sort(key=lambda r: r.task)
    asked.draw(figures.score_intervals, "returns.png", records, note=points.scale_note(asked))
    return tables.dom2_table(asked, trained, records, notes, 7)


# --- Table 8 ---


def table8(asked: Asked) -> str:
    """Table 8: good episodes of 20 from different starts.

    Then, from one start, good ones and their joint solutions.
    """
    tasks = asked.tasks or (TASK,)
    printed = tables.published(8)
    trained = []
    rows = []
    # system -> data set -> its counts
    by_system: dict[str, dict[str, Counts]] = {}
    for task in tasks:
        for quality in tables.qualities(asked, task):
            systems = asked.systems or tables.SYSTEMS
            cell, results = cells.train(asked, systems, task, quality)
            counted = count_solutions(results, with_solution(make(task)))
            for record, counts in counted:
                name = comparison.short_name(record)
                data = f"{cell.task.name} {cell.quality}"
                by_system.setdefault(name, {})[data] = counts
            rows += count_rows(cell, counted, printed)
            measured.add_measures(asked.out, count_measures(results, counted))
            trained.append(cell)
            draw_paths(asked, results, folder_name(cell.task.name, cell.quality))
            # the results hold the data
            del results
    titles = ("good of 20", "good, one start", "solutions, one start")
    note = points.scale_note(asked)
    asked.draw(curves.counts, "solutions.png", by_system, titles, note)
    head = (
        "task",
        "data",
        "system",
        f"good of {TRIES} starts",
        f"good of {TRIES} from one start",
        "joint solutions among them",
        "published good ± std",
    )
    how = (
        f"Count: episodes that return more than {GOOD:g}, mean ± std over seeds. The paper speaks "
        f"of 10 episodes, and its largest entry is 20.0 ± 0.0: ours are out of {TRIES}. Joint "
        "solutions have no printed counterpart."
    )
    notes = [*NOTES, how, *tables.absent(asked, tasks)]
    before = cells.preface(asked, trained, notes, tables.THEIRS)
    return f"{before}\n{comparison.markdown_table(head, rows)}"


def count_rows(
    cell: cells.Cell, counted: Sequence[tuple[Record, Counts]], printed: Published
) -> list[tuple[str, ...]]:
    """Rows of Table 8 for one cell: our systems, then those that only the paper has."""
    task_and_data = (cell.task.name, cell.quality)
    rows = []
    for record, counts in counted:
        theirs = comparison.printed_score(printed.get((TASK, cell.quality, record.system)))
        name = comparison.full_name(record)
        rows.append((*task_and_data, name, *map(_count_cell, counts), theirs))
    ours = {record.system for record, _ in counted}
    others = {system for _, data, system in printed if data == cell.quality} - ours
    for system in sorted(others):
        theirs = comparison.printed_score(printed[TASK, cell.quality, system])
        rows.append((*task_and_data, system, "", "", "", theirs))
    return rows


def count_solutions(results: Results, task: Task) -> list[tuple[Record, Counts]]:
    """Each record with the counts of its runs."""
    different_starts = shifted.outcomes(results, EvaluationSetting(task, TRIES))
    one_start = shifted.outcomes(results, EvaluationSetting(task, 1, TRIES))
    counted = []
    for (group, runs, wide), (_, _, deep) in zip(
        list(different_starts), list(one_start), strict=True
    ):
        for record in results.records:
            rows = [r for r, run in enumerate(runs) if run.info["config"] == record.config]
            if record.system != group.name or not rows:
                continue
            solutions = distinct(deep["return"][rows, 0], deep["solution"][rows, 0])
            good_wide = count_good(wide["return"][rows])
            good_deep = count_good(deep["return"][rows])
            counted.append((record, [good_wide, good_deep, solutions]))
    return counted


def count_measures(results: Results, counted: Sequence[tuple[Record, Counts]]) -> list[Measure]:
    """The counts of each run, as evidence."""
    rows = []
    for record, counts in counted:
        of_record = lambda run: (run.info["system"], run.info["config"])
        runs = [r for r in results.runs if of_record(r) == (record.system, record.config)]
        first = runs[0]
        seeds = [int(run.info["seed"]) for run in runs]
        name = (keep.game(first), record.system, keep.setting(first))
        numbers = np.array(counts, float)
        values: dict[str, np.ndarray] = dict(zip(METRICS, numbers, strict=True))
        rows += measured.of_seeds(*name, seeds, values)
    return rows


def count_good(returns: Float[np.ndarray, "R E K"]) -> list[int]:
    """Good episodes of each run."""
    return (returns.reshape(len(returns), -1) > GOOD).sum(axis=1).tolist()


def _count_cell(values: Sequence[int]) -> str:
    cell = f"{np.mean(values):.1f}"
    if len(values) > 1:
        cell += f" ± {np.std(values, ddof=1):.1f}"
    return cell


# --- Figures 1 and 11 ---


def fig11(asked: Asked) -> str:
    """Figures 1 and 11: returns, standard and with hidden landmarks, and counts of solutions."""
    return f"{table7(asked)}\n\n{table8(asked)}"


# --- the picture ---


def draw_paths(asked: Asked, results: Results, name: str) -> None:
    """Draw five attempts of each system's first seed from one start.

    The picture is `asked.out/ways-<name>.png`.
    """
    attempts = {group.name: attempts_of(group, past) for group, past in results.past}
    asked.draw(curves.solution_paths, f"ways-{name}.png", attempts, points.scale_note(asked))


def attempts_of(group: Group, past: Mapping[str, Any]) -> Attempts:
    """Attempts of a group's first run from one start: 3 agents, 6 landmarks."""
    final = group.system.pipeline(group.task.env.spec, group.cfgs[0], None)[-1]
    policy = final.algorithm.act
    assert policy is not None
    first_run = lambda tree: jax.tree.map(lambda x: x[0], tree)
    state = first_run(past[final.name])
    before = first_run({name: stage for name, stage in past.items() if name != final.name})
    act = lambda key, memory, observation: policy(key, state, before, memory, observation)
    env = group.task.env
    one_start = env._replace(reset=lambda key: env.reset(jax.random.key(0)))
    key = jax.random.key(group.seeds[0])
    states, _, _ = render.roll_out_states(one_start, act, final.algorithm.memory, key, SHOWN)
    last = jax.tree.map(lambda x: jnp.asarray(x[:, -1]), states)
    solutions = np.asarray(jax.vmap(solution)(last))
    return states.pos[:, :, :AGENTS], states.pos[0, 0, AGENTS:], solutions
