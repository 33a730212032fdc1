"""OMSD's Table 1, the bandit r = a_1 a_2: published numbers, exact and learned scores.

With exact scores and an exact critic nothing is learned but the policies, so what remains is the
method itself: the weight w(t), the range of t, and beta.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxomarl.algorithms import REGISTRY, brpo, omsd
from jaxomarl.api import plan, session
from jaxomarl.base import Algorithm, Past, Spec, Stage, System
from jaxomarl.data.catalog import load
from jaxomarl.data.stats import statistics
from jaxomarl.diffusion.schedules import vp
from jaxomarl.envs.catalog import make
from jaxomarl.envs.games import bandit_eps, bandit_own_value
from jaxomarl.papers import cells, measured
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.comparison import markdown_table
from jaxomarl.papers.measured import Measure
from jaxomarl.presets import PRESETS
from jaxomarl.results import tables
from jaxomarl.results.tables import Record
from jaxomarl.stages.score_regularised import Config
from jaxomarl.training.runner import Job
from jaxomarl.training.runner import run as train

SYSTEMS = ("brpo-ind", "brpo-ctde", "omsd", "brpo-jal")
PUBLISHED = {
    "brpo-ind": "0 ± 1",
    "brpo-ctde": "0 ± 1",
    "omsd": "1 ± 0",
    "brpo-jal": "1 ± 0",
}
"""OMSD's Table 1."""
KINDS = {"omsd": "conditional", "brpo-jal": "joint", "joint-score": "joint"}
"""System -> its scores, where they are not marginal."""
VARIANTS = {
    "brpo-ind": brpo.IND,
    "brpo-ctde": brpo.CTDE,
    "brpo-jal": brpo.JAL,
    "joint-score": brpo.JOINT_SCORE,
}
STD = {"std0.1": 0.1, "std0.3": 0.3, "sqrt0.3": 0.3**0.5}
BETAS = (0.02, 0.1, 0.3)
START = "0.5,-0.48"
CORRELATION = 0.8
"""Correlation of the two Gaussian actions whose scores are compared."""


# --- the bandit with exact scores and critics ---


def exact_system(name: str, std: float) -> System:
    """A system of the OMSD family on the bandit, with exact models.

    The data's own scores and the reward stand in place of learned models.
    """
    kind = KINDS.get(name, "marginal")
    eps = bandit_eps(kind, std)
    alpha, sigma = vp()

    def own_eps(
        past: Past, i: Array, x: Array, t: Array, obs: Array, state: Array, action: Array
    ) -> Array:
        # agent 1 has no preceding action: its marginal is the conditional at 0
        preceding = jnp.where(i == 0, 0.0, action[:, 0])
        return eps(x, alpha(t)[:, None], sigma(t)[:, None], preceding)

    def team_eps(past: Past, x: Array, t: Array, obs: Array, state: Array, action: Array) -> Array:
        # a joint score has one time for both agents
        times = t if kind == "marginal" else t[:, :1]
        return eps(x[..., 0], alpha(times), sigma(times))[..., None]

    def q(past: Past, obs: Array, state: Array, action: Array) -> Array:
        if name == "brpo-ind":
            return bandit_own_value(action, std).sum(axis=(1, 2))
        return jnp.prod(action[..., 0], axis=1)

    def policy(spec: Spec, cfg: Any) -> Algorithm:
        if name == "omsd":
            return omsd.policy(spec, cfg, own_eps, q)
        return brpo.policy(spec, cfg, VARIANTS[name], team_eps, q)

    def pipeline(spec: Spec, cfg: Any, env: Any = None) -> tuple[Stage, ...]:
        stage = Stage.from_config(
            cfg, "policy", policy(spec, cfg), cfg.policy_steps, owner=f"exact-{name}"
        )
        return (stage,)

    return REGISTRY[name]._replace(pipeline=pipeline)


def exact_ends(
    name: str, quality: str, cfgs: list[Config], seeds: list[int], say: Callable = print
) -> np.ndarray:
    """[R, 2]: where R exact runs on the bandit end."""
    task = make("games/bandit")
    # the task is stateless: the rows only carry the constant observation
    data, _ = load(task, quality, rows=64)
    ends = []

    def finished(index: int, stage: Stage, trained: Any) -> None:
        last = [trained.evaluations[f"action_{i}"][:, -1].mean(axis=1) for i in (1, 2)]
        ends.append(np.stack(last, axis=-1))

    job = Job(
        exact_system(name, STD[quality]),
        task.env.spec,
        cfgs,
        seeds,
        data,
        statistics(data),
        env=task.env,
        episodes=1,
        finished=finished,
        say=say,
    )
    train(job)
    return ends[0]


def paper_code(name: str, beta: float, start: str = START, **more: Any) -> Config:
    """The authors' released weighting (w = sigma^2, t ~ U(0.02, 0.98)) at a beta.

    Policies go by plain descent until they rest.
    """
    settings = {
        **PRESETS["paper-code"].cfg,
        "policy_batch": 512,
        "policy_steps": 6000,
        "policy_lr": 0.2,
        "chunk": 1000,
        "every": 6,
        "beta": beta,
        "start": start,
        "control_variate": True,
        "policy_optimiser": "sgd",
        "policy_width": 0,
        **more,
    }
    return REGISTRY[name].Config(**settings)


def second_table(
    say: Callable = print, qualities: tuple[str, ...] = ("std0.1", "std0.3")
) -> list[dict[str, Any]]:
    """End points from (0.5, -0.48) under `paper-code` with exact scores: std x beta x system."""
    rows = []
    seeds = [0] * len(BETAS)
    for quality in qualities:
        ends = {}
        for name in SYSTEMS:
            cfgs = [paper_code(name, beta) for beta in BETAS]
            ends[name] = exact_ends(name, quality, cfgs, seeds, say)
        for k, beta in enumerate(BETAS):
            own_ends = {name: ends[name][k] for name in SYSTEMS}
            rows.append({"std": STD[quality], "beta": beta, **own_ends})
    return rows


# --- the table ---


def omsd_table1(asked: Asked) -> str:
    """Table 1's bandit: published, exact and learned rewards; then the end points."""
    say = asked.progress.say
    asked.check_unused("omsd-table1", "its cells are fixed.")
    rows = [("published", "", *(PUBLISHED[s] for s in SYSTEMS))]
    # a dict keeps the order of the learned scores' notes, each once
    notes: dict[str, None] = {}
    measures = gaussian_scores()
    stages = []
    for preset, quality in (("mode-seeking", "std0.3"), ("paper-code", "std0.1")):
        # --- exact scores ---
        cells_of = {}
        setting = f"{preset}, exact scores"
        for name in SYSTEMS:
            ends = _exact_ends(name, preset, quality, asked.seeds, say)
            cells_of[name] = _ends_cell(ends)
            measures += _of_ends(name, setting, asked.seeds, ends)
        rows.append((setting, quality, *(cells_of[s] for s in SYSTEMS)))

        # --- learned scores ---
        setting = f"{preset}, learned scores"
        results = _learned(asked, preset, quality)
        learned = {r.system: _learned_cell(r) for r in results.records}
        rows.append((setting, quality, *(learned[s] for s in SYSTEMS)))
        notes |= dict.fromkeys(tables.notes(results.records))
        for name in SYSTEMS:
            ends = _learned_ends(results, name, asked.seeds)
            measures += _of_ends(name, setting, asked.seeds, ends)
        stages += measured.stage_words("bandit", setting, results.runs)
    measured.save_measures(asked.out, measures, stages)
    head = ("reward, mean ± std over seeds (coordinated)", "data", *SYSTEMS)
    end_head = ("data std", "beta", *SYSTEMS)
    end_rows = []
    for row in second_table(say):
        ends = [f"({row[s][0]:.2f}, {row[s][1]:.2f})" for s in SYSTEMS]
        end_rows.append((str(row["std"]), str(row["beta"]), *ends))
    seeds = f"{len(asked.seeds)} seeds, starts uniform in +-0.9"
    return (
        f"Bandit r = a_1 a_2, {seeds}:\n\n{markdown_table(head, rows)}\n"
        f"Learned scores: mean [95 %] ± std. {' '.join(notes)}\n\n"
        f"End points from ({START}) under paper-code with exact scores:\n\n"
        f"{markdown_table(end_head, end_rows)}"
    )


def gaussian_scores() -> list[Measure]:
    """Three scores of two agents whose actions are Gaussian, of correlation 0.8, at (1, -1).

    They are derivatives of log densities: the joint one, each agent's given the preceding actions
    (the sequential score), and each agent's own (the marginal score).
    """
    covariance = jnp.array([[1.0, CORRELATION], [CORRELATION, 1.0]])
    action = jnp.array([1.0, -1.0])

    def joint(a: Array) -> Array:
        return -0.5 * a @ jnp.linalg.solve(covariance, a)

    def second_given_first(a: Array) -> Array:
        return -0.5 * (a[1] - CORRELATION * a[0]) ** 2 / (1.0 - CORRELATION**2)

    own = -action
    sequential = jnp.stack([own[0], jax.grad(second_given_first)(action)[1]])
    scores = {"joint": jax.grad(joint)(action), "sequential": sequential, "marginal": own}
    measures = []
    for system, score in scores.items():
        for i, value in enumerate(np.asarray(score).tolist(), 1):
            game = "two Gaussian actions"
            setting = f"correlation {CORRELATION:g}, at (1, -1)"
            measures.append(Measure(game, system, setting, "", f"score_{i}", value))
    return measures


def _learned(asked: Asked, preset: str, quality: str) -> session.Results:
    """Train the systems with learned scores."""
    groups = plan.resolve(
        SYSTEMS, ["games/bandit"], [quality], asked.seeds, preset, scale=asked.scale
    )
    folder = asked.out / preset
    with cells.open_cell_folder(asked, folder, preset):
        return cells.train_groups(asked, groups, folder)


def _learned_ends(results: session.Results, name: str, seeds: list[int]) -> np.ndarray:
    """[R, 2]: where the policies with learned scores end, by the final evaluation."""
    ends = np.full((len(seeds), 2), np.nan)
    for row in results.final:
        if row.system == name and row.metric in ("action_1", "action_2"):
            ends[seeds.index(row.seed), int(row.metric[-1]) - 1] = row.value
    return ends


def _exact_ends(
    name: str, preset: str, quality: str, seeds: list[int], say: Callable
) -> np.ndarray:
    """[R, 2]: where the policies with exact scores end."""
    cfg = REGISTRY[name].Config(**PRESETS[preset].cfg)
    return exact_ends(name, quality, [cfg] * len(seeds), seeds, say)


def _coordinated(ends: np.ndarray) -> np.ndarray:
    """Whether each end [R, 2] has both actions of one sign, and neither near 0."""
    return (ends.prod(axis=1) > 0) & (np.abs(ends).min(axis=1) > 0.3)


def _ends_cell(ends: np.ndarray) -> str:
    """The reward of ends: mean, std, share coordinated."""
    reward = ends.prod(axis=1)
    std = reward.std(ddof=1) if len(reward) > 1 else 0.0
    return f"{reward.mean():.2f} ± {std:.2f} ({_coordinated(ends).mean():.0%})"


def _of_ends(name: str, setting: str, seeds: list[int], ends: np.ndarray) -> list[Measure]:
    """Each seed's reward where it ends, and whether it is coordinated."""
    values = {"reward": ends.prod(axis=1), "coordinated": _coordinated(ends)}
    return measured.of_seeds("bandit", name, setting, seeds, values)


def _learned_cell(r: Record) -> str:
    """A learned policy's reward: mean, interval, std, share coordinated, convergence mark."""
    cell = tables.interval(r, r.mean, r.mean_low, r.mean_high)
    if r.std is not None:
        cell += f" ± {r.std:.2f}"
    return cell + f" ({r.coordinated:.0%})" + tables.marks(r)
