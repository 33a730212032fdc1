"""`reproduce omsd-oracle`: how much of what OMSD loses is learning, and how much is acting apart.

The data are those of known behaviours. Their own teams and the rest points of exact scores act
centrally. Policies of o_i alone that clone the same rest points, and OMSD with exact scores, are
what decentralised execution leaves. OMSD with learned scores is what learning leaves of that. beta
is 0 throughout, so that no critic is in it.
"""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
from jaxomarl.papers.asked import Asked, one_name
from jaxomarl.papers.comparison import markdown_table
from jaxomarl.papers.omsd import rest_points
from jaxomarl.papers.omsd.rest_points import TeamRule
from jaxomarl.paths import folder_name
from jaxomarl.results import store, tables
from jaxomarl.results.tables import Record

TASK = "mpe/spread"
DATA = ("expert", "expert-modes", "medium", "one-expert")
SYSTEMS = {"omsd": "conditional", "brpo-ctde": "marginal"}
"""System -> its scores."""
KIND_NAMES = {"conditional": "sequential", "marginal": "marginal"}
"""Scores -> their name in the tables."""
PRESET = "oracle"
EPISODES = 2048
ROWS = 450_000
CLONED_ROWS = 50_000
SEED = 5
"""Seed of the starts of what acts centrally."""
WEIGHTINGS = ("vds", "score")
MODELS = ("exact", "exact-posterior", "diffusion")
PLAIN_RULES = {"one behaviour": "one", "mean of all": "mean", "drawn anew at every step": "draw"}
"""Column -> how a team of behaviours acts without rest points."""
CENTRAL_NOTE = (
    "Played centrally, mean return ± standard error over episodes; agents' rest points start at "
    "zero, and every agent is conditioned on all observations and on the preceding actions. Last: "
    "behaviour cloning, mean ± std over seeds."
)


def omsd_oracle(asked: Asked) -> str:
    """Both tables, a data set at a time.

    Raises JaxomarlError where the behaviours are not known.
    """
    wrong = [name for name in asked.systems if name not in (*SYSTEMS, "bc")]
    if wrong:
        elsewhere = "experiments.sweep takes --cfg.score-model exact for others."
        way_out = f"Leave it out for all three; {elsewhere}"
        raise refuse("--systems", f"{', '.join(SYSTEMS)} or bc", wrong[0], way_out)
    task = make(one_name("--tasks", asked.tasks, TASK))
    asked = dataclasses.replace(asked, episodes=asked.episodes or EPISODES, rows=asked.rows or ROWS)
    qualities = asked.data or tuple(q for q in DATA if q in task.behaviours)
    for quality in qualities or ("nothing",):
        if quality not in task.behaviours:
            known = ", ".join(task.behaviours) or "other tasks' data"
            wanted = f"data whose behaviours are known: {known}"
            raise refuse("--data", wanted, quality, "Exact scores need them.")
    central: dict[tuple[str, str], list[float]] = {}
    records: list[Record] = []
    for quality in qualities:
        folder = asked.out / folder_name(task.name, quality)
        with cells.open_cell_folder(asked, folder, PRESET):
            for column, score in central_scores(asked, task, quality, folder).items():
                central[quality, column] = score
            records += decentralised_records(asked, task, quality, folder)
    return oracle_report(asked, task, qualities, central, records)


def weightings(asked: Asked) -> tuple[str, ...]:
    """The weights w(t) of the table."""
    return tuple(map(str, asked.overrides.get("weighting", WEIGHTINGS)))


def rest_rules(asked: Asked) -> dict[str, TeamRule]:
    """Every rule of rest points, by its column: scores and weighting."""
    times = {f: asked.overrides[f][0] for f in ("t_min", "t_max") if f in asked.overrides}
    rules = {}
    for weighting in weightings(asked):
        cfg = REGISTRY["omsd"].Config(weighting=weighting, **times)
        for kind in SYSTEMS.values():
            rules[f"{KIND_NAMES[kind]} {weighting}"] = TeamRule(kind, cfg)
    return rules


def _rest_facts() -> list[int]:
    """What a rest point depends on, besides its rule."""
    return [rest_points.TIMES, rest_points.PAIRS, rest_points.ITERATIONS]


# --- nothing learned ---


def central_scores(asked: Asked, task: Task, quality: str, folder: Path) -> dict[str, list[float]]:
    """Column -> mean return and its standard error, rolled out or read from the folder."""
    path = folder / "central.json"
    stored = {}
    if path.exists():
        stored = store.read_json(path)
    behaviours = task.behaviours[quality]()
    rules = {column: TeamRule(name) for column, name in PLAIN_RULES.items()} | rest_rules(asked)
    scores = {}
    for column, rule in rules.items():
        settings = dataclasses.asdict(rule.cfg) if rule.cfg else {}
        facts = [asked.episodes, SEED, *_rest_facts()]
        name = f"{column}-{digest(facts, settings)}"
        if name not in stored:
            asked.progress.say(f"{task.name} {quality}: {column}, played centrally")
            values = rest_points.team_returns(task.env, behaviours, rule, asked.episodes, SEED)
            returns = np.asarray(values)
            error = returns.std() / len(returns) ** 0.5
            stored[name] = [float(returns.mean()), float(error)]
            store.write_json(path, stored)
        scores[column] = stored[name]
    return scores


def cloned_groups(asked: Asked, task: Task, quality: str, folder: Path, bc: Group) -> list[Group]:
    """BC on the rest points at the data's observations.

    There is a group for each rule whose system was asked for.
    """
    data, manifest = load(task, quality, min(CLONED_ROWS, asked.rows))
    behaviours = task.behaviours[quality]()
    wanted = {SYSTEMS[name] for name in asked.systems or SYSTEMS if name in SYSTEMS}
    groups = []
    for column, rule in rest_rules(asked).items():
        if rule.name not in wanted:
            continue
        assert rule.cfg is not None
        name = f"{quality}-rest-{column}".replace(" ", "-")
        facts = [manifest["sha256"], *_rest_facts()]
        sha = digest(facts, rule.name, dataclasses.asdict(rule.cfg))
        path = folder / "rest" / f"{name}-{sha}.npy"
        if not path.exists():
            asked.progress.say(f"{task.name} {quality}: {column}, at {len(data.starts)} rows")
            obs = data.obs[data.starts]
            _write_array(path, np.asarray(rest_points.team_actions(behaviours, rule, obs)))
        cloned = with_actions(data, np.load(path))
        own_manifest = {**manifest, "quality": name, "sha256": sha}
        cfgs = [(bc.cfgs[0], {"weighting": rule.cfg.weighting})]
        seeds = list(dict.fromkeys(bc.seeds))
        groups += plan.groups(
            "bc", task, name, cloned, own_manifest, cfgs, seeds, asked.scale, bc.final_episodes
        )
    return groups


def _write_array(path: Path, array: np.ndarray) -> None:
    content = io.BytesIO()
    np.save(content, array)
    store.write_bytes(path, content.getvalue())


def with_actions(data: Dataset, action: np.ndarray) -> Dataset:
    """The data set with other actions [T, N, A] in its transitions; their source is dropped."""
    widths = {name: int(np.prod(shape)) for name, shape in data.layout.blocks.items()}
    first = widths["obs"] + widths["state"]
    columns = slice(first, first + widths["action"])
    flat = jnp.asarray(action).reshape(len(action), -1)
    rows = data.rows.at[data.starts, columns].set(flat)
    return dataclasses.replace(data, rows=rows, source=None)


# --- policies of o_i alone ---


def decentralised_records(asked: Asked, task: Task, quality: str, folder: Path) -> list[Record]:
    """Records of BC on the rest points, BC on the data, and both systems.

    The systems are trained under each weighting and score model.
    """
    systems = asked.systems or (*SYSTEMS, "bc")
    (bc,) = resolve_groups(asked, ["bc"], task, quality, {})
    groups = [bc] if "bc" in systems else []
    groups += cloned_groups(asked, task, quality, folder, bc)
    own_systems = [name for name in SYSTEMS if name in systems]
    if own_systems:
        for weighting in weightings(asked):
            groups += weighted_groups(asked, own_systems, task, quality, weighting)
    return cells.train_groups(asked, groups, folder).records


def weighted_groups(
    asked: Asked, systems: Sequence[str], task: Task, quality: str, weighting: str
) -> list[Group]:
    """Groups of the systems under one weighting, for each score model."""
    overrides: dict[str, Sequence[Any]] = {
        "weighting": [weighting],
        # a control variate has less variance under this weighting alone
        "control_variate": [weighting == "vds"],
        "score_model": list(MODELS),
    }
    for field, values in asked.overrides.items():
        if field != "weighting":
            overrides[field] = values
    groups = resolve_groups(asked, systems, task, quality, overrides)
    for group in groups:
        both = {"weighting": weighting, "score_model": group.cfgs[0].score_model}
        group.swept = [{**swept, **both} for swept in group.swept]
    return groups


def resolve_groups(
    asked: Asked, systems: Sequence[str], task: Task, quality: str, overrides: plan.Overrides
) -> list[Group]:
    """Groups of the preset `oracle`; `overrides` of BC are those of what was asked that it has."""
    if not overrides:
        known = plan.config_field_names(systems[0])
        overrides = {field: v[:1] for field, v in asked.overrides.items() if field in known}
    return plan.resolve(
        systems,
        [task.name],
        [quality],
        asked.seeds,
        PRESET,
        overrides,
        asked.rows,
        asked.episodes,
        asked.scale,
        final_episodes=asked.final_episodes,
    )


# --- the tables ---


def oracle_report(
    asked: Asked,
    task: Task,
    qualities: Sequence[str],
    central: Mapping[tuple[str, str], list[float]],
    records: Sequence[Record],
) -> str:
    """Both tables and what has to be known to read them."""
    columns = [*PLAIN_RULES, *rest_rules(asked)]
    bc = {r.data: r for r in records if r.system == "bc"}
    central_rows = []
    for q in qualities:
        scores = [central_cell(central[q, column]) for column in columns]
        central_rows.append((q, *scores, score_cell(bc.get(q))))
    other_rows = [row for q in qualities for row in decentralised_rows(asked, q, records)]
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
    scale = "Scale: the preset `oracle`."
    if asked.scale != 1.0:
        scale = tables.reduced(asked.scale)
    plural = "s" if len(asked.seeds) > 1 else ""
    seeds = f"{len(asked.seeds)} seed{plural}"
    return (
        f"{task.name}, beta 0, {seeds}, {asked.episodes} episodes, {asked.rows} rows. {scale}\n\n"
        f"{CENTRAL_NOTE}\n\n{markdown_table(('data', *columns, 'BC'), central_rows)}\n"
        "Policies of o_i alone, mean return ± std over seeds. Copied: the rest points above at the "
        f"data's observations, {min(CLONED_ROWS, asked.rows)} rows, by BC. Exact: the system "
        "trained with exact scores at the behaviours' shares; posterior: with a learned posterior "
        f"of the behaviour given o_i.\n\n{markdown_table(head, other_rows)}"
    )


def decentralised_rows(
    asked: Asked, quality: str, records: Sequence[Record]
) -> list[tuple[str, ...]]:
    """A data set's rows of the second table: weighting, scores, and whatever else was swept."""
    rows = []
    for weighting in weightings(asked):
        for system, kind in SYSTEMS.items():
            clone_data = f"{quality}-rest-{KIND_NAMES[kind]}-{weighting}"
            clone = next((r for r in records if r.data == clone_data), None)
            own = [r for r in records if (r.system, r.data) == (system, quality)]
            for more, by_model in by_score_model(own, weighting).items():
                name = " ".join(filter(None, (system, more)))
                rows.append((quality, weighting, name, score_cell(clone), *_model_cells(by_model)))
    return rows


def by_score_model(records: Sequence[Record], weighting: str) -> dict[str, dict[str, Record]]:
    """Whatever else was swept -> score model -> the record under a weighting."""
    groups: dict[str, dict[str, Record]] = {}
    for r in records:
        swept = swept_values(r.swept)
        if swept.pop("weighting") == weighting:
            model = swept.pop("score_model")
            rest = " ".join(f"{field}={value}" for field, value in swept.items())
            groups.setdefault(rest, {})[model] = r
    return groups


def _model_cells(by_model: Mapping[str, Record]) -> tuple[str, ...]:
    """Cells of exact, posterior and learned scores, and the share of the exact ones' return."""
    exact = by_model.get("exact")
    posterior = by_model.get("exact-posterior")
    learned = by_model.get("diffusion") or by_model.get("mixture")
    share = ""
    if learned and exact:
        share = f"{learned.mean / exact.mean:.0%}"
    return score_cell(exact), score_cell(posterior), score_cell(learned), share


def swept_values(swept: str) -> dict[str, str]:
    """The swept values of a record."""
    return dict(item.split("=", 1) for item in swept.split())


def score_cell(r: Record | None) -> str:
    """Mean ± std over seeds."""
    if r is None:
        return ""
    if r.std is None:
        return f"{r.mean:.1f}"
    return f"{r.mean:.1f} ± {r.std:.1f}"


def central_cell(measured: Sequence[float]) -> str:
    """Mean ± standard error."""
    mean, error = measured
    return f"{mean:.1f} ± {error:.1f}"
