"""DOM2's 3 agents and 6 landmarks: Table 7's returns, Table 8's good policies, and the ways that they go (Figure 10).

K = 1 plays episodes from different starts, those of the final evaluation. K = 10 plays ten from each of the first tenth
of these, which have its positions and its hidden landmarks in common and differ in the policy's own draws, and takes
the best: a policy of one way gains nothing by it.

A good episode returns more than 400 in the standard environment. A joint solution is which landmark each agent ends at,
three different ones within touch; the paper shows colours and gives no rule.
"""

from collections.abc import Sequence
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
from jaxomarl.papers import cells, comparison, shifted
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.dom2 import tables
from jaxomarl.paths import folder_name
from jaxomarl.results import curves
from jaxomarl.results.tables import Record

TASK, AGENTS, REACH = "mpe/six", 3, 0.2  # an agent's and a landmark's radius
GOOD, TRIES, SHOWN = 400.0, 20, 5
HIDDEN, BEST = "hidden=3", 10
NOTES = (
    "Data: ours are made by this package's own behaviours, or named by `--data`; the paper's are its authors' own.",
    "Reward: the paper prints no formula; ours is cooperative navigation's, with the six landmarks on the unit circle.",
    "Settings: the paper gives no eta and no thresholds for this task; ours are the defaults unless set.",
)


def solution(scene: Scene) -> Float[Array, ""]:
    """A number for who is at which landmark, in base 6 with agent 0 first; -1 unless all are, at different ones."""
    d = distance(scene.pos[:AGENTS, None], scene.pos[None, AGENTS:])
    d = jnp.where(scene.seen > 0, d, jnp.inf)
    at = d.argmin(axis=1)
    apart = (at[:, None] == at[None]).sum() == AGENTS
    number = (at * 6 ** jnp.arange(AGENTS - 1, -1, -1)).sum()
    return jnp.where(apart & (d.min(axis=1) < REACH).all(), number, -1).astype(jnp.float32)


def watched(task: Task) -> Task:
    """The task with `solution` among its infos."""

    def told(scene: Scene, now: Any) -> tuple[Scene, Any]:
        return scene, now._replace(info={**now.info, "solution": solution(scene)})

    env = task.env
    reset = lambda key: told(*env.reset(key))
    step = lambda key, scene, action: told(*env.step(key, scene, action))
    return task._replace(env=env._replace(reset=reset, step=step))


def distinct(returns: Float[np.ndarray, "R K"], solutions: Float[np.ndarray, "R K"]) -> list[int]:
    """How many joint solutions are among each run's good episodes."""
    kept = (returns > GOOD) & (solutions >= 0)
    return [len(set(s[k])) for s, k in zip(solutions, kept, strict=True)]


def table7(asked: Asked) -> str:
    """Table 7: standard with K = 1, and three landmarks hidden with K = 1 and K = 10."""
    tasks, made, records = asked.tasks or (TASK,), [], []
    for task in tasks:
        for quality in tables.qualities(asked, task):
            cell, results = cells.train(asked, asked.systems or tables.SYSTEMS, task, quality)
            other = make(shifted.beside(task, HIDDEN))
            records += cell.records
            for attempts in (1, BEST):
                starts = max(
                    1, shifted.final_episodes(results) // attempts
                )  # as many episodes either way
                records += shifted.records(results, shifted.Meeting(other, starts, attempts))
            made.append(cell)
            del results  # and the data with them
    notes = [*NOTES, tables.SHIFTED, *tables.absent(asked, tasks)]
    return tables.table(asked, made, sorted(records, key=lambda r: r.task), notes, 7)


def table8(asked: Asked) -> str:
    """Table 8: good episodes of 20 from different starts; and, from one start, good ones and their joint solutions."""
    tasks, printed = asked.tasks or (TASK,), tables.published(8)
    made, out, counts = [], [], {}
    for task in tasks:
        for quality in tables.qualities(asked, task):
            cell, results = cells.train(asked, asked.systems or tables.SYSTEMS, task, quality)
            mine, at = counted(results, watched(make(task))), (cell.task.name, cell.quality)
            for record, values in mine:
                paper = comparison.paper(printed.get((TASK, cell.quality, record.system)))
                out.append((*at, comparison.named(record), *(_spread(v) for v in values), paper))
                name = " ".join(filter(None, (record.system, record.swept)))
                counts.setdefault(name, {})[" ".join(at)] = values
            theirs = {s for _, d, s in printed if d == cell.quality} - {r.system for r, _ in mine}
            out += [
                (*at, s, "", "", "", comparison.paper(printed[TASK, cell.quality, s]))
                for s in sorted(theirs)
            ]
            made.append(cell)
            picture(asked, results, folder_name(*at))
            del results  # and the data with them
    asked.draw(
        curves.counts,
        "solutions.png",
        counts,
        ("good of 20", "good, one start", "solutions, one start"),
    )
    head = ("task", "data", "system", f"good of {TRIES} starts", f"good of {TRIES} from one start")
    head = (*head, "joint solutions among them", "published good ± std")
    how = (
        f"Count: episodes that return more than {GOOD:g}, mean ± std over seeds. The paper speaks of 10 episodes, and "
        f"its largest entry is 20.0 ± 0.0: ours are out of {TRIES}. Joint solutions have no printed counterpart."
    )
    notes = [*NOTES, how, *tables.absent(asked, tasks)]
    return f"{cells.preface(asked, made, notes, tables.THEIRS)}\n{comparison.markdown(head, out)}"


def counted(results: Results, task: Task) -> list[tuple[Record, list[list[int]]]]:
    """(record, [good of different starts, good of one start, their solutions], each a number per run)."""
    many = list(shifted.played(results, shifted.Meeting(task, TRIES)))
    one = list(shifted.played(results, shifted.Meeting(task, 1, TRIES)))
    out = []
    for (group, runs, wide), (_, _, deep) in zip(many, one, strict=True):
        for record in results.records:
            rows = [r for r, run in enumerate(runs) if run.info["config"] == record.config]
            if record.system != group.name or not rows:
                continue
            good = [
                (x["return"][rows].reshape(len(rows), -1) > GOOD).sum(axis=1).tolist()
                for x in (wide, deep)
            ]
            ways = distinct(deep["return"][rows, 0], deep["solution"][rows, 0])
            out.append((record, [*good, ways]))
    return out


def _spread(values: Sequence[int]) -> str:
    std = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{std}"


def picture(asked: Asked, results: Results, name: str) -> None:
    """Draw how each system's first seed goes from one start, five times, into `asked.out/ways-<name>.png`."""
    asked.draw(
        curves.ways, f"ways-{name}.png", {g.name: walks(g, past) for g, past in results.past}
    )


def walks(group: Group, past: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(agents' positions [E, T + 1, 3, 2], landmarks [6, 2], solutions [E]) of a group's first run from one start."""
    final = group.system.pipeline(group.task.env.spec, group.cfgs[0], None)[-1]
    policy = final.algorithm.act
    assert policy is not None
    state, before = jax.tree.map(
        lambda x: x[0], (past[final.name], {k: v for k, v in past.items() if k != final.name})
    )
    act = lambda key, memory, seen: policy(key, state, before, memory, seen)
    env = group.task.env
    same = env._replace(reset=lambda key: env.reset(jax.random.key(0)))
    states, _, _ = render.play(
        same, act, final.algorithm.memory, jax.random.key(group.seeds[0]), SHOWN
    )
    end = jax.vmap(solution)(jax.tree.map(lambda x: jnp.asarray(x[:, -1]), states))
    return states.pos[:, :, :AGENTS], states.pos[0, 0, AGENTS:], np.asarray(end)
