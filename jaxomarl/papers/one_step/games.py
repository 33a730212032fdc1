"""The games of `reproduce one-step`: agreements of two to five agents, value, and landmarks."""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxomarl.base import nearest, refuse
from jaxomarl.envs import games
from jaxomarl.papers import measured
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.comparison import markdown_table
from jaxomarl.papers.dof import covering
from jaxomarl.papers.dof.models import compiled
from jaxomarl.papers.measured import Measure, Part, of_seeds
from jaxomarl.papers.one_step import law, models
from jaxomarl.papers.one_step.models import CALLS, Game, Sizes
from jaxomarl.results.curves import Point

UPDATES = 1000
ROWS = 4000
STD = 0.1
"""Standard deviation of the data about a level."""
AGENTS = 5
"""Agents of the programs, of which laws with fewer mask the last ones."""
LAWS = ((2, 2), (3, 2), (4, 2), (5, 2), (2, 3))
"""(agents, levels) of the games that are trained."""
KINDS = ("joint", "own")
GAMES = {2: "two levels", 3: "three levels"}
ALPHAS = (0.3, 1.0, 3.0, 10.0)
"""Weights of the distillation next to a value."""
CRITICS = {
    "mean of own critics": ("mean", "own"),
    "joint critic": ("joint", "own"),
    "joint critic, shared noise": ("joint", "shared"),
}
"""Arm -> the value of the team, and the students' noise."""
VALUED = ("reward", "coordinated share")
"""Metrics of the students under a critic."""
LANDMARK_UPDATES = 1500
WALKED = ("coordinated share", "return")
"""Metrics of plans."""
PLANS = 100
"""Plans of each seed."""
SHOWN = {
    "joint flow": "joint flow, 16",
    "own flows": "own flow, 16",
    "joint mean flow": "joint mean flow, 1",
    "students, own noise": "joint distillate, 1",
    "students, shared noise": "shared noise, 1",
    "students, half shared": "partly shared noise, 1",
    "in turn": "in turn, n",
}
"""Curve -> the model behind it."""
CALLED = {
    "joint flow": "joint flow", "own flows": "own flow", "joint mean flow": "joint mean flow",
    "students, own noise": "joint distillate", "students, shared noise": "shared noise",
    "students, half shared": "partly shared noise", "law: joint flow": "law: joint flow",
    "joint consistency": "joint consistency", "joint diffusion": "joint diffusion",
}  # fmt: skip
"""Curve by calls -> the models behind it, without their calls."""
LAW_CURVES = {"law: students": "law: students", "law: product": "law: product"}
DASHED = {
    "law: joint flow": "joint flow",
    "law: product": "own flows",
    "law: students": "students, own noise",
}
"""Law -> the models that follow it, whose colour it has."""
DOTTED = {
    "joint consistency": "joint mean flow",
    "joint diffusion": "students, shared noise",
    "mean of own critics": "own flows",
    "joint critic": "in turn",
    "joint critic, shared noise": "joint flow",
}
"""Diffusions and students under a critic -> the curve that lends its colour."""
SLOTS = {
    **{name: k for k, name in enumerate(SHOWN)},
    **{name: len(SHOWN) + list(SHOWN).index(of) for name, of in DASHED.items()},
    **{name: 2 * len(SHOWN) + list(SHOWN).index(of) for name, of in DOTTED.items()},
}
"""Curve -> its place in the order of colours and dashes, which has as many colours as `SHOWN`."""
CURVE_ORDER = tuple(SLOTS)
"""All curves, in the order of the legend."""
SHOWN_METRICS = {"share that agrees": "coordinated share", "total variation": "total variation"}
"""What a panel shows -> its metric."""
AGENTS_OF_TWO = tuple(n for n, k in LAWS if k == 2)
LEVELS = (2, 3, 4)
CALLS_PANEL = "two agents, two levels: share by calls"
LANDMARK_PANELS = {
    "landmarks: share that covers all, by calls": "coordinated share",
    "landmarks: return, by calls": "return",
}
"""Panel -> its metric."""
VALUE_PANEL = "with value: reward of the bandit"

Drawn = Mapping[str, Array]
"""Model -> samples [B, N, D]."""


class Agreement(NamedTuple):
    """A law as arrays, so that one program serves all."""

    level: Float[Array, " K"]
    chance: Float[Array, " K"]
    mask: Float[Array, "N 1"]


def agreement(agents: int, levels: int) -> Agreement:
    """The law in which all agents take one of the levels."""
    spaces = 3 - levels
    level = np.pad(law.levels_of(levels), (0, spaces))
    chance = np.pad(np.full(levels, 1.0 / levels), (0, spaces))
    mask = (np.arange(AGENTS) < agents)[:, None]
    arrays = (jnp.asarray(x, jnp.float32) for x in (level, chance, mask))
    return Agreement(*arrays)


def game_of(given: Agreement) -> Game:
    """Rows of a law, clamped to the box as the games' data are."""

    def draw(key: Key[Array, ""], rows: int) -> Float[Array, "B N D"]:
        k_level, k_noise = jax.random.split(key)
        u = jax.random.uniform(k_level, (rows, 1))
        chosen = jnp.sum(u > jnp.cumsum(given.chance)[:-1], axis=1)
        noise = STD * jax.random.normal(k_noise, (rows, len(given.mask), 1))
        return given.mask * jnp.clip(given.level[chosen][:, None, None] + noise, -1.0, 1.0)

    return Game(draw, given.mask)


# --- agreements ---


def agreements(asked: Asked) -> Part:
    """All models on every law: how far their levels are from the data's, and how many agree."""
    with ThreadPoolExecutor(2) as threads:
        of_kinds = list(threads.map(partial(trained_measures, asked), KINDS))
    measures = [row for agents, levels in LAWS for row in law_measures(agents, levels)]
    for of_kind in of_kinds:
        measures += of_kind
    return Part(agreement_text(measures), measures)


def trained_measures(asked: Asked, kind: str) -> list[Measure]:
    """The values of all models of a kind, on every law, from one compiled program."""
    sizes = Sizes(AGENTS, 1, 32, asked.updates(UPDATES), ROWS)

    def of_seed(given: Agreement, seed: Array) -> dict[str, Array]:
        return models.team_models(kind, sizes, game_of(given), jax.random.key(seed))

    program = compiled(of_seed)

    def measure(agents: int, levels: int, seed: int) -> list[Measure]:
        drawn = program(agreement(agents, levels), jnp.uint32(seed))
        rows = []
        for name, x in drawn.items():
            rows += sampled_measures(seed, agents, levels, name, np.asarray(x[:, :agents, 0]))
        return rows

    measures = []
    for agents, levels in LAWS:
        name = f"{kind}, {agents} agents, {levels} levels"
        of_law = partial(measure, agents, levels)
        measures += measured.seed_by_seed(asked, name, sizes, of_law)
    return measures


def law_measures(agents: int, levels: int) -> list[Measure]:
    """The exact values of a law: of students, of a product, of followed exact flows."""
    exact = {"law: students": law.students(agents, levels)}
    exact["law: product"] = law.product(agents, levels)
    for calls in CALLS:
        exact[f"law: joint flow, {calls}"] = law.followed(agents, levels, STD, calls)
    measures = []
    for name, values in exact.items():
        for metric, value in metrics_of(values).items():
            measures.append(Measure(GAMES[levels], name, f"agents={agents}", "", metric, value))
    return measures


def metrics_of(values: law.Values) -> dict[str, float]:
    """Metric -> value."""
    return {
        "total variation": values.distance,
        "coordinated share": values.share,
        "variance": values.variance,
    }


def sampled_measures(
    seed: int, agents: int, levels: int, name: str, x: Float[np.ndarray, "B N"]
) -> list[Measure]:
    """The values of a seed's samples, and the distance of one agent's actions from the data."""
    values = metrics_of(law.of_samples(x, levels))
    values["marginal distance"] = marginal_distance(x[:, 0], levels)
    each = {metric: [value] for metric, value in values.items()}
    return of_seeds(GAMES[levels], name, f"agents={agents}", [seed], each)


def marginal_distance(x: Float[np.ndarray, " B"], levels: int) -> float:
    """Wasserstein-1 of one agent's actions from the data's, which have small deviations."""
    rng = np.random.default_rng(0)
    level = rng.choice(law.levels_of(levels), len(x))
    data = np.clip(level + STD * rng.standard_normal(len(x)), -1.0, 1.0)
    return float(np.abs(np.sort(x) - np.sort(data)).mean())


def agreement_text(measures: Sequence[Measure]) -> str:
    """A table for each number of levels."""
    parts = []
    for levels, game in GAMES.items():
        agents = [n for n, k in LAWS if k == levels]
        own = [m for m in measures if m.game == game]
        names = list(dict.fromkeys(m.system for m in own))
        rows = []
        for name in names:
            cells = []
            for n in agents:
                for metric in ("coordinated share", "total variation"):
                    cells.append(mean_cell(own, name, f"agents={n}", metric))
            first = mean_cell(own, name, "agents=2", "marginal distance")
            rows.append((name, *cells, first))
        columns = [f"{what}, n = {n}" for n in agents for what in ("share", "TV")]
        table = markdown_table(("model, calls", *columns, "W_1, n = 2"), rows)
        parts.append(f"## Agreements on {game}\n\n{table}")
    return "\n\n".join(parts)


def mean_cell(measures: Sequence[Measure], system: str, setting: str, metric: str) -> str:
    """Mean over seeds, and the standard error where there are several."""
    values = values_of(measures, system, setting, metric)
    if not len(values):
        return ""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    error = values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():.3f} ± {error:.3f}"


def values_of(
    measures: Sequence[Measure], system: str, setting: str, metric: str
) -> Float[np.ndarray, " R"]:
    """The seeds' numbers of one metric."""
    found = [
        m.value for m in measures if (m.system, m.setting, m.metric) == (system, setting, metric)
    ]
    return np.array(found)


# --- value ---


def with_value(asked: Asked) -> Part:
    """Students of the bandit's joint flow that climb an exact value, by the weight alpha."""
    sizes = Sizes(2, 1, 32, asked.updates(UPDATES), ROWS)
    program = compiled(lambda seed: valued(sizes, jax.random.key(seed)))

    def measure(seed: int) -> list[Measure]:
        rows = []
        for name, x in program(jnp.uint32(seed)).items():
            for alpha, of_alpha in zip(ALPHAS, np.asarray(x[..., 0]), strict=True):
                rows += valued_measures(seed, name, alpha, of_alpha)
        return rows

    measures = measured.seed_by_seed(asked, "value", [sizes, ALPHAS], measure)
    rows = []
    for name in CRITICS:
        settings = [f"alpha={alpha:g}" for alpha in ALPHAS]
        cells = [mean_cell(measures, name, s, m) for s in settings for m in VALUED]
        rows.append((name, *cells))
    head = [f"{what}, alpha {alpha:g}" for alpha in ALPHAS for what in ("reward", "share")]
    text = (
        f"## With value, the bandit\n\n{markdown_table(('critic', *head), rows)}\n"
        "Students of the joint flow on r = a_1 a_2, with exact critics; the data's mean reward is "
        "0.64, the optimum 1. The loss is alpha mean |f - g|^2 - mean Q / sg mean |Q|."
    )
    return Part(text, measures)


def valued_measures(
    seed: int, name: str, alpha: float, x: Float[np.ndarray, "B N"]
) -> list[Measure]:
    """The reward of a seed's samples, and the share that agrees."""
    numbers = (float(x.prod(axis=1).mean()), law.of_samples(x, 2).share)
    values = {metric: [value] for metric, value in zip(VALUED, numbers, strict=True)}
    return of_seeds("bandit with value", name, f"alpha={alpha:g}", [seed], values)


def valued(sizes: Sizes, key: Key[Array, ""]) -> dict[str, Float[Array, "K B N D"]]:
    """Samples of the students under each critic, for each alpha."""
    k_flow, k_pairs, k_z, k_students = jax.random.split(key, 4)
    given = agreement(2, 2)
    game = game_of(given._replace(mask=given.mask[:2]))
    velocity = models.flow("joint", sizes, game, k_flow)
    pairs = models.pool(velocity, sizes, game, k_pairs)
    z = jax.random.normal(k_z, (sizes.rows, *game.mask.shape))
    values = {"mean": mean_value, "joint": joint_value}
    students = {"own": models.own_student(sizes), "shared": models.shared_student(sizes)}

    def samples(critic: str, noise: str, alpha: Array) -> Array:
        value = partial(normalised, values[critic])
        settings = (students[noise], pairs, sizes, game.mask, k_students)
        return models.distilled(*settings, value, alpha)(z)

    alphas = jnp.asarray(ALPHAS)
    return {
        name: jax.lax.map(partial(samples, critic, noise), alphas)
        for name, (critic, noise) in CRITICS.items()
    }


def normalised(value: Callable[[Array], Array], action: Float[Array, "B N D"]) -> Float[Array, ""]:
    """The mean value of actions over its mean size, which is held constant."""
    q = value(action)
    return q.mean() / jax.lax.stop_gradient(jnp.abs(q).mean() + 1e-8)


def joint_value(action: Float[Array, "B N D"]) -> Float[Array, " B"]:
    """a_1 a_2."""
    return jnp.prod(action[..., 0], axis=1)


def mean_value(action: Float[Array, "B N D"]) -> Float[Array, " B"]:
    """The best fit of a_1 a_2 on the data by a mean of own critics 2 m a tanh(m a / s^2) - m^2.

    It is even in each action: it cannot tell which agreement the other agent follows.
    """
    m = games.BANDIT_MODE
    own = 2.0 * games.bandit_own_value(action[..., 0], STD) - m**2
    return own.mean(axis=1)


# --- landmarks ---


def landmarks(asked: Asked) -> Part:
    """Plans of three agents that may go round either way: do their ways agree?

    `asked.systems` chooses models by their name without calls.
    """
    sizes = Sizes(covering.AGENTS, 2 * covering.AHEAD, 64, asked.updates(LANDMARK_UPDATES), PLANS)
    place = covering.starts_and_landmarks(covering.DATA["two ways"])

    def draw(key: Key[Array, ""], rows: int) -> Float[Array, "B N D"]:
        return covering.draw_teams(key, rows, (place, 0.5))[0]

    game = Game(draw, jnp.ones((sizes.agents, sizes.columns)))
    walk_all = compiled(jax.vmap(covering.walk, (0, None)))

    def measure(program: Callable[[Array], Drawn], seed: int) -> list[Measure]:
        rows = []
        for name, x in program(jnp.uint32(seed)).items():
            plans = x.reshape(-1, sizes.agents, covering.AHEAD, 2)
            _, score, _, covered = walk_all(plans, place)
            means = (float(covered.mean()), float(score.mean()))
            values = {metric: [mean] for metric, mean in zip(WALKED, means, strict=True)}
            rows += of_seeds("landmarks", name, "agents=3", [seed], values)
        return rows

    def drawn(kind: str, seed: Array) -> Drawn:
        all_models = models.team_models(kind, sizes, game, jax.random.key(seed))
        return models.chosen(all_models, asked.systems)

    measures = []
    for kind in chosen_kinds(asked.systems):
        program = compiled(partial(drawn, kind))
        facts = [sizes, covering.AHEAD, asked.systems]
        name = f"landmarks, {kind}"
        measures += measured.seed_by_seed(asked, name, facts, partial(measure, program))
    names = list(dict.fromkeys(row.system for row in measures))
    rows = [(n, *(mean_cell(measures, n, "agents=3", m) for m in WALKED)) for n in names]
    text = (
        "## Landmarks, three agents\n\n"
        f"{markdown_table(('model, calls', 'all covered', 'return'), rows)}\n"
        f"{PLANS} plans of each seed; in the data half of the teams go one way round, half the "
        "other, and all landmarks are covered."
    )
    return Part(text, measures)


def chosen_kinds(names: Sequence[str]) -> list[str]:
    """The kinds of these models, all where there are none; JaxomarlError for an unknown name."""
    known = [name for of_kind in models.NAMES.values() for name in of_kind]
    for name in names:
        if name not in known:
            wanted = f"models among {', '.join(known)}"
            raise refuse("--systems", wanted, name, nearest(name, known))
    return [kind for kind in KINDS if not names or set(names) & set(models.NAMES[kind])]


# --- the figure ---


def points(measures: Sequence[Measure]) -> tuple[list[Point], dict[str, list[str]]]:
    """The figure's points, and the words below their panels.

    Curves come in the order of `CURVE_ORDER`, and look as `SLOTS` has it.
    """
    found = [
        *by_agents(measures),
        *by_levels(measures),
        *by_calls(measures, GAMES[2], 2, CALLS_PANEL, "coordinated share"),
        *by_alpha(measures),
    ]
    for panel, metric in LANDMARK_PANELS.items():
        found += by_calls(measures, "landmarks", covering.AGENTS, panel, metric)
    found.sort(key=lambda p: CURVE_ORDER.index(p.curve))
    agents = [f"n = {n}" for n in AGENTS_OF_TWO]
    levels = [f"{k} levels" for k in LEVELS]
    calls = ["1 call", *(f"{calls} calls" for calls in CALLS[1:])]
    named = {
        **{f"two levels: {what}": agents for what in SHOWN_METRICS},
        **{f"two agents: {what}": levels for what in SHOWN_METRICS},
        CALLS_PANEL: calls,
        VALUE_PANEL: [f"alpha {alpha:g}" for alpha in ALPHAS],
        **dict.fromkeys(LANDMARK_PANELS, calls),
    }
    return found, named


def by_agents(measures: Sequence[Measure]) -> list[Point]:
    """Two levels, by the number of agents."""
    of_two = [m for m in measures if m.game == GAMES[2]]
    found = []
    for what, metric in SHOWN_METRICS.items():
        for name, system in {**SHOWN, **LAW_CURVES}.items():
            for k, n in enumerate(AGENTS_OF_TWO):
                values = values_of(of_two, system, f"agents={n}", metric)
                found += point(f"two levels: {what}", name, k, values)
    return found


def by_levels(measures: Sequence[Measure]) -> list[Point]:
    """Two agents, by the number of levels; the laws go on where no model is trained."""
    found = []
    for k, levels in enumerate(LEVELS):
        of_game = [m for m in measures if m.game == GAMES.get(levels)]
        laws = {
            "law: students": metrics_of(law.students(2, levels)),
            "law: product": metrics_of(law.product(2, levels)),
        }
        for what, metric in SHOWN_METRICS.items():
            panel = f"two agents: {what}"
            for name, system in SHOWN.items():
                found += point(panel, name, k, values_of(of_game, system, "agents=2", metric))
            for name, exact in laws.items():
                found += point(panel, name, k, np.array([exact[metric]]))
    return found


def by_calls(
    measures: Sequence[Measure], game: str, agents: int, panel: str, metric: str
) -> list[Point]:
    """A game's models by the calls of a decision, which double from word to word."""
    of_game = [m for m in measures if m.game == game]
    setting = f"agents={agents}"
    found = []
    for name, system in CALLED.items():
        for k, calls in enumerate(CALLS):
            values = values_of(of_game, f"{system}, {calls}", setting, metric)
            found += point(panel, name, k, values)
    in_turn = values_of(of_game, SHOWN["in turn"], setting, metric)
    return [*found, *point(panel, "in turn", math.log2(agents), in_turn)]


def by_alpha(measures: Sequence[Measure]) -> list[Point]:
    """The bandit's reward, by the weight of the distillation."""
    bandit = [m for m in measures if m.game == "bandit with value"]
    found = []
    for name in CRITICS:
        for k, alpha in enumerate(ALPHAS):
            values = values_of(bandit, name, f"alpha={alpha:g}", "reward")
            found += point(VALUE_PANEL, name, k, values)
    return found


def point(panel: str, curve: str, x: int | float, values: np.ndarray) -> list[Point]:
    """The mean of seeds with their range; nothing where there are none."""
    if not len(values):
        return []
    low, high = (values.min(), values.max()) if len(values) > 1 else (np.nan, np.nan)
    mean = float(values.mean())
    return [Point(panel, curve, float(x), mean, float(low), float(high), len(values))]
