"""Judges of claims on games: what `omsd-table1`, `dof-games` and `coda-games` measured."""

import numpy as np
from jaxtyping import Float

from jaxomarl.papers.verdicts import rules
from jaxomarl.papers.verdicts.evidence import (
    Evidence,
    exact,
    settings_of,
    stages_passed,
    stages_shown,
    values,
)
from jaxomarl.papers.verdicts.rules import Answer, Part

# --- OMSD's bandit ---

CELLS = {
    "mode-seeking, exact scores": "weights at small t, beta 1.29, exact scores",
    "mode-seeking, learned scores": "weights at small t, beta 1.29, learned scores",
    "paper-code, exact scores": "the released weights, beta 0.1, exact scores",
    "paper-code, learned scores": "the released weights, beta 0.1, learned scores",
}
"""The cells of `omsd-table1`, in words."""
SEQUENTIAL = ("omsd", "brpo-jal")
INDEPENDENT = ("brpo-ind", "brpo-ctde")
PRINTED_REWARD = 1.0
"""By how much OMSD's Table 1 has OMSD and JAL above IND and CTDE."""


def bandit_order(evidence: Evidence) -> list[Part]:
    """OMSD-1: the printed order of four systems, in each cell."""
    return [_bandit_cell(evidence, setting, words) for setting, words in CELLS.items()]


def _bandit_cell(evidence: Evidence, setting: str, words: str) -> Part:
    rewards = {}
    shares = {}
    for system in (*SEQUENTIAL, *INDEPENDENT):
        rewards[system] = values(evidence, "bandit", system, setting, "reward")
        shares[system] = values(evidence, "bandit", system, setting, "coordinated").mean()
    answers = []
    for first in SEQUENTIAL:
        for other in INDEPENDENT:
            difference = rules.paired(rewards[first], rewards[other])
            seeds = len(rewards[first])
            answers.append(rules.ahead(difference, seeds, printed=PRINTED_REWARD))
    answer = rules.gated([stages_passed(evidence, setting)], rules.every(answers))
    cells = [f"{s} {rules.shown(rewards[s])} ({shares[s]:.0%})" for s in rewards]
    numbers = ["reward (share of seeds that coordinate): " + ", ".join(cells)]
    health = stages_shown(evidence, setting)
    if health:
        numbers.append(f"stages: {health}")
    return Part(words, answer, tuple(numbers))


SAME_VECTOR = 1e-3
"""Largest difference of two exact vectors that are equal."""


def same_score(evidence: Evidence) -> list[Part]:
    """OMSD-3: whether the sequential score is the joint one at a point; exact, so without seeds."""
    game = "two Gaussian actions"
    setting = "correlation 0.8, at (1, -1)"
    vectors = {}
    for system in ("joint", "sequential", "marginal"):
        vectors[system] = [exact(evidence, game, system, setting, f"score_{i}") for i in (1, 2)]
    error = np.abs(np.subtract(vectors["joint"], vectors["sequential"])).max()
    answer = Answer(rules.YES if error <= SAME_VECTOR else rules.NO)
    shown = [f"{name} ({x:.2f}, {y:.2f})" for name, (x, y) in vectors.items()]
    numbers = f"scores of two Gaussian actions of {setting}: {', '.join(shown)}"
    return [Part("as a gradient", answer, (numbers,))]


# --- DoF's games ---

GATE = 0.02
"""Total variation from the data that a joint network may have at most."""
CLOSE = 0.01
FAR = 0.05
LEVEL = 0.02
"""Differences of total variation within which two models are level: a joint network's own."""
TEAM_SIZES = (2, 3, 4, 5)
JOINT = "one joint network"
DISTANCE = "total variation"
PRODUCTS = {"separate": "agents apart", "concat": "DoF concat", "wconcat": "DoF wconcat"}
"""Models that are products of their agents' laws, in words."""


def distances(evidence: Evidence, game: str, kind: str, n: int) -> Float[np.ndarray, " R"]:
    """Total variation of a model's samples from the data, of each seed."""
    return values(evidence, game, kind, f"agents={n}", DISTANCE)


def joint_has_learned(evidence: Evidence, game: str, sizes: tuple[int, ...]) -> Answer:
    """The gate: one network of all agents is near the data."""
    worst = max(distances(evidence, game, "joint", n).mean() for n in sizes)
    return rules.gate(f"{JOINT} is {worst:.3f} from the data", bool(worst <= GATE))


def product_law(evidence: Evidence) -> list[Part]:
    """OMSD-2: products of fitted marginals are as far from the data as the formula says."""
    three = "three modes, three agents"
    return [
        _product_part(evidence, "two modes", TEAM_SIZES, "two modes, two to five agents"),
        _product_part(evidence, "three modes", (3,), three),
    ]


def _product_part(evidence: Evidence, game: str, sizes: tuple[int, ...], words: str) -> Part:
    answers = []
    numbers = []
    for n in sizes:
        law = exact(evidence, game, "law", f"agents={n}", DISTANCE)
        cells = []
        for kind, name in {"joint": JOINT, **PRODUCTS}.items():
            found = distances(evidence, game, kind, n)
            cells.append(f"{name} {rules.shown(found)}")
            if kind != "joint":
                answers.append(rules.near(found, law, CLOSE, FAR))
        numbers.append(f"{game}, {n} agents, formula {law:.4f}: {', '.join(cells)}")
    gate = joint_has_learned(evidence, game, sizes)
    return Part(words, rules.gated([gate], rules.every(answers)), tuple(numbers))


def better_fit(evidence: Evidence) -> list[Part]:
    """DOF-1: a factorised diffusion is nearer to joint data than independent ones."""
    # --- against agents that are trained apart ---
    answers = []
    numbers = []
    for n in TEAM_SIZES:
        apart = distances(evidence, "two modes", "separate", n)
        cells = []
        for kind in ("concat", "wconcat"):
            gain = rules.paired(apart, distances(evidence, "two modes", kind, n))
            answers.append(rules.better(gain, len(apart), LEVEL))
            cells.append(f"{PRODUCTS[kind]} {rules.estimate_shown(gain)}")
        numbers.append(f"two modes, {n} agents, nearer to the data by: {', '.join(cells)}")
    gate = joint_has_learned(evidence, "two modes", TEAM_SIZES)
    apart_part = Part(
        "against agents trained apart, on data of two modes",
        rules.gated([gate], rules.every(answers)),
        tuple(numbers),
    )

    # --- against one network that does not know whose action it makes ---
    four = "four Gaussians"
    pooled = distances(evidence, four, "pooled", 2)
    gain = rules.paired(pooled, distances(evidence, four, "concat", 2))
    gate = joint_has_learned(evidence, four, (2,))
    answer = rules.gated([gate], rules.better(gain, len(pooled), LEVEL))
    line = f"{four}, DoF concat nearer to the data by: {rules.estimate_shown(gain)}"
    pooled_part = Part(
        "against one network that does not know whose action it makes, on four Gaussians",
        answer,
        (line,),
    )
    return [apart_part, pooled_part]


COLLISIONS_GATE = 0.05
"""Collisions an episode by which a joint network's plans may exceed the data's."""
SHARE = 0.05
"""Share of the data's return within which two systems are level."""


def covering(evidence: Evidence) -> list[Part]:
    """DOF-2: DoF's plans return more and collide less than independent ones."""
    parts = []
    for data in ("one way", "two ways"):
        for kind, name in {"separate": "agents apart", "pooled": "pooled networks"}.items():
            parts.append(_covering_part(evidence, f"covering, {data}", kind, name))
    return parts


def _covering_part(evidence: Evidence, game: str, kind: str, name: str) -> Part:
    results = {}
    for system in ("data", "joint", "concat", kind):
        for metric in ("return", "collisions"):
            results[system, metric] = values(evidence, game, system, "", metric)
    seeds = len(results["concat", "return"])
    level = SHARE * float(results["data", "return"].mean())
    more = rules.paired(results["concat", "return"], results[kind, "return"])
    fewer = rules.paired(results[kind, "collisions"], results["concat", "collisions"])
    answer = rules.every([rules.better(more, seeds, level), rules.better(fewer, seeds, SHARE)])
    excess = float(results["joint", "collisions"].mean() - results["data", "collisions"].mean())
    gate = rules.gate(
        f"{JOINT} collides {excess:.2f} times more than the data", excess <= COLLISIONS_GATE
    )
    line = (
        f"{game}, DoF concat over {name}: return {rules.estimate_shown(more)} more, collisions "
        f"{rules.estimate_shown(fewer)} fewer; {JOINT} collides {excess:.2f} times more than data"
    )
    return Part(f"{game} against {name}", rules.gated([gate], answer), (line,))


RMSE = 0.2
"""Error below which a payoff is rebuilt."""
FULL = 0.95
"""Share of the circle's sectors from which on it is covered."""
COMPOSED = "both by composition, w = 1"


def payoffs_and_circle(evidence: Evidence) -> list[Part]:
    """DOF-5: payoffs are rebuilt from agents' own diffusions; two conditions fill the circle."""
    parts = []
    for payoff in ("additive", "the paper's second", "climbing"):
        parts.append(_payoff_part(evidence, payoff, "wconcat", "h a weighted sum"))
    for payoff in ("the paper's second", "climbing"):
        parts.append(_payoff_part(evidence, payoff, "atten", "h that sees both actions"))
    covered = values(evidence, "circle", COMPOSED, "", "covered")
    line = f"circle, sectors covered by composing both conditions: {rules.shown(covered)}"
    parts.append(Part("the circle by two conditions", rules.above(covered, FULL), (line,)))
    return parts


def _payoff_part(evidence: Evidence, payoff: str, mix: str, words: str) -> Part:
    game = f"payoffs, {payoff}"
    errors = values(evidence, game, mix, "", "rmse")
    floor = exact(evidence, game, "additive least squares", "", "rmse")
    found = int((errors < RMSE).sum())
    line = (
        f"{payoff} payoffs, {words}: error {rules.shown(errors)}, below {RMSE} in {found} of "
        f"{len(errors)} seeds; least squares of an additive matrix {floor:.3f}"
    )
    return Part(f"{payoff} payoffs with {words}", rules.below(errors, RMSE), (line,))


# --- CODA's games ---

DATA, FREE, HIGH, CODA = "no augmentation (BRUD)", "unconditional", "Q-conditioned", "CODA"
MARGINAL_GATE = 0.05
OPTIMUM = 0.5625
"""The best reward of twin peaks, 9 / 16."""
WIDE = "actions in +-2"


def column_error(evidence: Evidence, game: str) -> float:
    """How far the worse column of the model is from the data's distribution."""
    return max(exact(evidence, game, FREE, "", f"error of {column}") for column in "xy")


def marginals_learned(evidence: Evidence, game: str) -> Answer:
    """The gate: the model's columns are distributed as the data's."""
    worst = column_error(evidence, game)
    return rules.gate(
        f"model: a column is {worst:.3f} off the data's distribution", worst <= MARGINAL_GATE
    )


def model_line(evidence: Evidence, game: str) -> str:
    """What has to be known of the model that the learners share."""
    return (
        f"one model of {game} serves all seeds, so that its own spread is in no interval; a column "
        f"is {column_error(evidence, game):.3f} off the data's distribution"
    )


def _rewards(evidence: Evidence, game: str, setting: str = "") -> dict[str, np.ndarray]:
    methods = (DATA, FREE, HIGH, CODA)
    return {m: values(evidence, game, m, setting, "reward") for m in methods}


def _rewards_line(game: str, rewards: dict[str, np.ndarray]) -> str:
    cells = [f"{method} {rules.shown(reward)}" for method, reward in rewards.items()]
    return f"{game}, reward: {', '.join(cells)}"


def _least(reward: Float[np.ndarray, " R"], limit: float) -> Answer:
    """Whether every seed has the reward (yes), or their interval lies below it (no)."""
    if reward.min() >= limit:
        return Answer(rules.YES)
    answer = rules.above(reward, limit)
    if answer.word == rules.YES:
        return Answer(rules.OPEN, f"not every seed reaches {limit:g}")
    return answer


def multiplication(evidence: Evidence) -> list[Part]:
    """CODA-1: on x y only CODA's rows lead to an optimum."""
    game = "multiplication"
    rewards = _rewards(evidence, game)
    answer = rules.every(
        [
            _least(rewards[CODA], 0.95),
            rules.below(rewards[DATA], 0.0),
            rules.below(rewards[FREE], 0.0),
        ]
    )
    gated = rules.gated([marginals_learned(evidence, game)], answer)
    numbers = (_rewards_line(game, rewards), model_line(evidence, game))
    return [Part("", gated, numbers)]


def high_rewards(evidence: Evidence) -> list[Part]:
    """CODA-2: asking for high rewards ends at the bounds, wherever they are, and fails without."""
    # --- at the bounds ---
    answers = []
    numbers = []
    for setting, bound in {"": 1.0, WIDE: 2.0}.items():
        x = values(evidence, "multiplication", HIGH, setting, "x")
        y = values(evidence, "multiplication", HIGH, setting, "y")
        nearest = np.minimum(np.abs(x), np.abs(y))
        answers.append(rules.above(nearest, 0.9 * bound))
        numbers.append(f"bound {bound:g}: smaller action {rules.shown(nearest)} from 0")

    # --- without them ---
    reward = values(evidence, "twin peaks", HIGH, "", "reward")
    answers.append(rules.below(reward, OPTIMUM / 2))
    numbers.append(f"twin peaks (best {OPTIMUM}): reward {rules.shown(reward)}")
    gates = []
    for game in ("multiplication", "twin peaks"):
        gates.append(marginals_learned(evidence, game))
        numbers.append(model_line(evidence, game))
    return [Part("", rules.gated(gates, rules.every(answers)), tuple(numbers))]


CENTRED = "twin peaks, data centred on an optimum"
CENTRED_CLOSE = 0.02


def twin_peaks(evidence: Evidence) -> list[Part]:
    """CODA-3: CODA finds the optimum of twin peaks; the data's spread pulls others from it."""
    # --- data all over the square ---
    rewards = _rewards(evidence, "twin peaks")
    others = [rules.below(rewards[m], OPTIMUM / 2) for m in (DATA, FREE, HIGH)]
    answer = rules.every([_least(rewards[CODA], 0.55), *others])
    gated = rules.gated([marginals_learned(evidence, "twin peaks")], answer)
    lines = (_rewards_line("twin peaks", rewards), model_line(evidence, "twin peaks"))
    parts = [Part("data all over the square", gated, lines)]

    # --- data centred on an optimum ---
    answers = []
    numbers = []
    for setting in ("std=0", "std=0.3", "std=0.6"):
        x = values(evidence, CENTRED, DATA, setting, "x")
        y = values(evidence, CENTRED, DATA, setting, "y")
        rules.check_paired(x, y)
        end = (x + y) / 2
        predicted = exact(evidence, CENTRED, DATA, setting, "predicted")
        answers.append(rules.near(end, predicted, CENTRED_CLOSE, CENTRED_CLOSE))
        numbers.append(
            f"centred data, {setting}: ends at {rules.shown(end)}, formula {predicted:.3f}"
        )
    parts.append(Part("data centred on an optimum", rules.every(answers), tuple(numbers)))
    return parts


def steering(evidence: Evidence) -> list[Part]:
    """CODA-4: guidance makes windows likelier under the policy, and too strong a one collapses."""
    game, metric = "steering", "log-likelihood"
    policies = dict.fromkeys(m.system for m in evidence.measures if m.game == game)
    return [_steering_part(evidence, game, metric, policy) for policy in policies]


def _steering_part(evidence: Evidence, game: str, metric: str, policy: str) -> Part:
    """One policy's curve over lambda: its best above none, and its last below the best."""
    curve = {
        setting: values(evidence, game, policy, setting, metric)
        for setting in settings_of(evidence, game, policy)
    }
    none, *strengths = curve
    best = max(strengths, key=lambda setting: float(curve[setting].mean()))
    seeds = len(curve[none])
    rises = rules.ahead(rules.paired(curve[best], curve[none]), seeds)
    falls = rules.ahead(rules.paired(curve[best], curve[strengths[-1]]), seeds)
    # a curve that only rises contradicts nothing: the strongest may be too weak
    if falls.word == rules.NO or best == strengths[-1]:
        falls = Answer(rules.OPEN, f"no fall up to {strengths[-1]}")
    gate = stages_passed(evidence, "")
    shown = [f"{setting} {rules.shown(x)}" for setting, x in curve.items()]
    numbers = (
        f"log-likelihood, {seeds} seeds: {', '.join(shown)}",
        f"stages: {stages_shown(evidence, '') or 'not on record'}",
    )
    return Part(f"{policy} policy", rules.gated([gate], rules.every([rises, falls])), numbers)
