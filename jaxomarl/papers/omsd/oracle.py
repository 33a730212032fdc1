"""`reproduce omsd-oracle`: how much of what OMSD loses is learning, and how much is acting apart.

The data are those of known behaviours. Their own teams and the rest points of exact scores are played centrally; the
same rest points, copied by policies of o_i alone, and OMSD with exact scores are what decentralised execution leaves;
OMSD with learned scores is what learning leaves of that. beta is 0 throughout, so that no critic is in it.
"""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jaxomarl.algorithms import REGISTRY
from jaxomarl.api import plan
from jaxomarl.api.plan import Group
from jaxomarl.base import Dataset, Task, refuse
from jaxomarl.config import digest
from jaxomarl.data.catalog import load
from jaxomarl.envs.catalog import make
from jaxomarl.papers import cells
from jaxomarl.papers.asked import Asked, one
from jaxomarl.papers.comparison import markdown
from jaxomarl.papers.omsd import rest_points
from jaxomarl.papers.omsd.rest_points import Way
from jaxomarl.paths import folder_name
from jaxomarl.results import store, tables
from jaxomarl.results.tables import Record

TASK = "mpe/spread"
DATA = ("expert", "expert-modes", "medium", "one-expert")
SYSTEMS = {"omsd": "conditional", "brpo-ctde": "marginal"}
"""System -> its scores."""
SAID = {"conditional": "sequential", "marginal": "marginal"}
PRESET = "oracle"
EPISODES, ROWS, COPIED = 2048, 450_000, 50_000
SEED = 5  # of the starts of what is played centrally
WEIGHTS = ("vds", "score")
MODELS = ("exact", "exact-posterior", "diffusion")
PLAIN = {"one behaviour": "one", "mean of all": "mean", "drawn anew at every step": "draw"}


def omsd_oracle(asked: Asked) -> str:
    """Both tables, a data set at a time; raises JaxomarlError where the behaviours are not known."""
    wrong = [name for name in asked.systems if name not in (*SYSTEMS, "bc")]
    if wrong:
        way = "Leave it out for all three; experiments.sweep takes --cfg.score-model exact for others."
        raise refuse("--systems", f"{', '.join(SYSTEMS)} or bc", wrong[0], way)
    task = make(one("--tasks", asked.tasks, TASK))
    asked = dataclasses.replace(asked, episodes=asked.episodes or EPISODES, rows=asked.rows or ROWS)
    qualities = asked.data or tuple(q for q in DATA if q in task.behaviours)
    for quality in qualities or ("nothing",):
        if quality not in task.behaviours:
            known = ", ".join(task.behaviours) or "other tasks' data"
            raise refuse(
                "--data",
                f"data whose behaviours are known: {known}",
                quality,
                "Exact scores need them.",
            )
    central: dict[tuple[str, str], list[float]] = {}
    records: list[Record] = []
    for quality in qualities:
        folder = asked.out / folder_name(task.name, quality)
        with cells.opened(asked, folder, PRESET):
            central |= {
                (quality, name): x for name, x in centrally(asked, task, quality, folder).items()
            }
            records += trained(asked, task, quality, folder)
    return text(asked, task, qualities, central, records)


def weightings(asked: Asked) -> tuple[str, ...]:
    """The weights w(t) of the table."""
    return tuple(map(str, asked.overrides.get("weighting", WEIGHTS)))


def ways(asked: Asked) -> dict[str, Way]:
    """Every way to rest, by its column: scores and weighting."""
    chosen = {f: asked.overrides[f][0] for f in ("t_min", "t_max") if f in asked.overrides}
    out = {}
    for weighting in weightings(asked):
        cfg = REGISTRY["omsd"].Config(weighting=weighting, **chosen)
        out |= {f"{SAID[kind]} {weighting}": Way(kind, cfg) for kind in SYSTEMS.values()}
    return out


# --- nothing learned ---


def centrally(asked: Asked, task: Task, quality: str, folder: Path) -> dict[str, list[float]]:
    """Column -> mean return and its standard error, played or found in the folder."""
    path = folder / "central.json"
    held = store.read_json(path) if path.exists() else {}
    known = task.behaviours[quality]()
    out = {}
    for column, way in ({c: Way(name) for c, name in PLAIN.items()} | ways(asked)).items():
        facts = [asked.episodes, SEED, rest_points.TIMES, rest_points.PAIRS, rest_points.ITERATIONS]
        name = f"{column}-{digest(facts, dataclasses.asdict(way.cfg) if way.cfg else {})}"
        if name not in held:
            asked.lines.say(f"{task.name} {quality}: {column}, played centrally")
            returns = np.asarray(rest_points.play(task.env, known, way, asked.episodes, SEED))
            held[name] = [float(returns.mean()), float(returns.std() / len(returns) ** 0.5)]
            store.write_json(path, held)
        out[column] = held[name]
    return out


def copied(asked: Asked, task: Task, quality: str, folder: Path, bc: Group) -> list[Group]:
    """BC on the rest points at the data's observations, a group for each way whose system was asked for."""
    data, manifest = load(task, quality, min(COPIED, asked.rows))
    known, wanted = (
        task.behaviours[quality](),
        {SYSTEMS[s] for s in asked.systems or SYSTEMS if s in SYSTEMS},
    )
    out = []
    for column, way in ways(asked).items():
        if way.name not in wanted:
            continue
        name = f"{quality}-rest-{column}".replace(" ", "-")
        facts = [manifest["sha256"], rest_points.TIMES, rest_points.PAIRS, rest_points.ITERATIONS]
        sha = digest(facts, way.name, dataclasses.asdict(way.cfg))
        path = folder / "rest" / f"{name}-{sha}.npy"
        if not path.exists():
            asked.lines.say(f"{task.name} {quality}: {column}, at {len(data.starts)} rows")
            rows = np.asarray(rest_points.actions(known, way, data.obs[data.starts]))
            content = io.BytesIO()
            np.save(content, rows)
            store.write_bytes(path, content.getvalue())
        taught = with_actions(data, np.load(path))
        made = {**manifest, "quality": name, "sha256": sha}
        cfgs = [(bc.cfgs[0], {"weighting": way.cfg.weighting})]
        out += plan.groups(
            "bc", task, name, taught, made, cfgs, list(dict.fromkeys(bc.seeds)), asked.scale
        )
    return out


def with_actions(data: Dataset, action: np.ndarray) -> Dataset:
    """The data set with other actions [T, N, A] in its transitions; who made them is forgotten."""
    widths = {name: int(np.prod(shape)) for name, shape in data.layout.blocks.items()}
    first = widths["obs"] + widths["state"]
    columns = slice(first, first + widths["action"])
    rows = data.rows.at[data.starts, columns].set(jnp.asarray(action).reshape(len(action), -1))
    return dataclasses.replace(data, rows=rows, source=None)


# --- policies of o_i alone ---


def trained(asked: Asked, task: Task, quality: str, folder: Path) -> list[Record]:
    """Records of BC on the rest points, BC on the data, and both systems under each weighting and score model."""
    systems = asked.systems or (*SYSTEMS, "bc")
    groups = resolve(asked, ["bc"], task, quality, {})
    (bc,) = groups
    if "bc" not in systems:
        groups = []
    groups += copied(asked, task, quality, folder, bc)
    for weighting in weightings(asked):
        given = {
            "weighting": [weighting],
            "control_variate": [weighting == "vds"],  # it is of less variance there alone
            "score_model": list(MODELS),
            **{field: values for field, values in asked.overrides.items() if field != "weighting"},
        }
        mine = [name for name in SYSTEMS if name in systems]
        for group in resolve(asked, mine, task, quality, given) if mine else []:
            said = {"weighting": weighting, "score_model": group.cfgs[0].score_model}
            group.swept = [{**swept, **said} for swept in group.swept]
            groups.append(group)
    return cells.trained(asked, groups, folder).records


def resolve(
    asked: Asked, systems: Sequence[str], task: Task, quality: str, overrides: plan.Overrides
) -> list[Group]:
    """Groups of the preset `oracle`; `overrides` of BC are those of what was asked that it has."""
    if not overrides:
        overrides = {f: v[:1] for f, v in asked.overrides.items() if f in plan.fields(systems[0])}
    return plan.resolve(
        systems, [task.name], [quality], asked.seeds, PRESET, overrides, asked.rows, asked.episodes, asked.scale,
        final_episodes=asked.final_episodes,
    )  # fmt: skip


# --- the tables ---


def text(
    asked: Asked,
    task: Task,
    qualities: Sequence[str],
    central: Mapping[tuple[str, str], list[float]],
    records: Sequence[Record],
) -> str:
    """Both tables and what has to be known to read them."""
    columns = [*PLAIN, *ways(asked)]
    bc = {r.data: r for r in records if r.system == "bc"}
    rows = [
        (q, *(central_cell(central[q, c]) for c in columns), score(bc.get(q))) for q in qualities
    ]
    apart = [row for q in qualities for row in decentralised(asked, q, records)]
    head = (
        "data",
        "w(t)",
        "scores of",
        "rest points copied",
        "exact",
        "exact, posterior",
        "learned",
        "learned / exact",
    )
    small = tables.reduced(asked.scale) if asked.scale != 1.0 else "Scale: the preset `oracle`."
    seeds = f"{len(asked.seeds)} seed{'s' if len(asked.seeds) > 1 else ''}"
    return (
        f"{task.name}, beta 0, {seeds}, {asked.episodes} episodes, {asked.rows} rows. {small}\n\n"
        "Played centrally, mean return ± standard error over episodes; agents' rest points start at zero, and every "
        "agent is told of all observations and of the preceding actions. Last: behaviour cloning, mean ± std over "
        f"seeds.\n\n{markdown(('data', *columns, 'BC'), rows)}\n"
        "Policies of o_i alone, mean return ± std over seeds. Copied: the rest points above at the data's "
        f"observations, {min(COPIED, asked.rows)} rows, by BC. Exact: the system trained with exact scores at the "
        "behaviours' shares; posterior: with a learned posterior of the behaviour given o_i.\n\n"
        f"{markdown(head, apart)}"
    )


def decentralised(asked: Asked, quality: str, records: Sequence[Record]) -> list[tuple[str, ...]]:
    """A data set's rows of the second table: weighting, scores, and whatever else was swept."""
    out = []
    for weighting in weightings(asked):
        for system, kind in SYSTEMS.items():
            copy = f"{quality}-rest-{SAID[kind]}-{weighting}"
            copies = next((r for r in records if r.data == copy), None)
            mine = [(r, parts(r.swept)) for r in records if (r.system, r.data) == (system, quality)]
            mine = [(r, swept) for r, swept in mine if swept.pop("weighting") == weighting]
            rest: dict[str, dict[str, Record]] = {}
            for r, swept in mine:
                model = swept.pop("score_model")
                rest.setdefault(" ".join(f"{k}={v}" for k, v in swept.items()), {})[model] = r
            for more, of in rest.items():
                name = " ".join(filter(None, (system, more)))
                learned = of.get("diffusion") or of.get("mixture")
                models = (of.get("exact"), of.get("exact-posterior"), learned)
                share = f"{learned.mean / models[0].mean:.0%}" if learned and models[0] else ""
                out.append((quality, weighting, name, score(copies), *map(score, models), share))
    return out


def parts(swept: str) -> dict[str, str]:
    """The swept values of a record."""
    return dict(item.split("=", 1) for item in swept.split())


def score(r: Record | None) -> str:
    """Mean ± std over seeds."""
    if r is None:
        return ""
    return f"{r.mean:.1f}" + ("" if r.std is None else f" ± {r.std:.1f}")


def central_cell(measured: Sequence[float]) -> str:
    """Mean ± standard error."""
    return f"{measured[0]:.1f} ± {measured[1]:.1f}"
