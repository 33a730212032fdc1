"""OMSD's Table 1, the bandit r = a_1 a_2: published numbers, exact scores and learned ones side by side.

With exact scores and an exact critic nothing is learned but the policies, so what remains is the method itself: the
weight w(t), the range of t, and beta.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxomarl.algorithms import REGISTRY, brpo, omsd
from jaxomarl.api import plan
from jaxomarl.base import Algorithm, Spec, Stage, System
from jaxomarl.data.catalog import load
from jaxomarl.data.stats import statistics
from jaxomarl.diffusion.schedules import vp
from jaxomarl.envs.catalog import make
from jaxomarl.envs.games import bandit_eps, bandit_own_value
from jaxomarl.papers import cells
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.comparison import markdown
from jaxomarl.presets import PRESETS
from jaxomarl.results import tables
from jaxomarl.results.tables import Record
from jaxomarl.training.runner import Job
from jaxomarl.training.runner import run as train

SYSTEMS = ("brpo-ind", "brpo-ctde", "omsd", "brpo-jal")
PUBLISHED = {
    "brpo-ind": "0 ± 1",
    "brpo-ctde": "0 ± 1",
    "omsd": "1 ± 0",
    "brpo-jal": "1 ± 0",
}  # OMSD, Table 1
STD = {"std0.1": 0.1, "std0.3": 0.3, "sqrt0.3": 0.3**0.5}
BETAS = (0.02, 0.1, 0.3)
START = "0.5,-0.48"


# --- the bandit with exact scores and critics ---


def exact_system(name: str, std: float) -> System:
    """A system of the OMSD family on the bandit with the data's own scores and reward in place of learned models."""
    kind = {"omsd": "conditional", "brpo-jal": "joint", "joint-score": "joint"}.get(
        name, "marginal"
    )
    eps, (alpha, sigma) = bandit_eps(kind, std), vp()

    def of_agent(
        past: Any, i: Array, x: Array, t: Array, obs: Array, state: Array, action: Array
    ) -> Array:
        heard = jnp.where(
            i == 0, 0.0, action[:, 0]
        )  # agent 1 hears nobody: the marginal is the conditional at 0
        return eps(x, alpha(t)[:, None], sigma(t)[:, None], heard)

    def of_all(past: Any, x: Array, t: Array, obs: Array, state: Array, action: Array) -> Array:
        return eps(x[..., 0], alpha(t), sigma(t))[..., None] if kind == "marginal" else joint(x, t)

    def joint(x: Array, t: Array) -> Array:
        return eps(x[..., 0], alpha(t[:, :1]), sigma(t[:, :1]))[..., None]

    def q(past: Any, obs: Array, state: Array, action: Array) -> Array:
        own = bandit_own_value(action, std).sum(axis=(1, 2))
        return own if name == "brpo-ind" else jnp.prod(action[..., 0], axis=1)

    def policy(spec: Spec, cfg: Any) -> Algorithm:
        if name == "omsd":
            return omsd.policy(spec, cfg, of_agent, q)
        variant = {
            "brpo-ind": brpo.IND,
            "brpo-ctde": brpo.CTDE,
            "brpo-jal": brpo.JAL,
            "joint-score": brpo.JOINT_SCORE,
        }
        return brpo.policy(spec, cfg, variant[name], of_all, q)

    def pipeline(spec: Spec, cfg: Any, env: Any = None) -> tuple[Stage, ...]:
        return (
            Stage(
                "policy",
                policy(spec, cfg),
                cfg.policy_steps,
                cfg.chunk,
                cfg.every,
                owner=f"exact-{name}",
            ),
        )

    return REGISTRY[name]._replace(pipeline=pipeline)


def exact_ends(
    name: str, quality: str, cfgs: list[Any], seeds: list[int], say: Callable = print
) -> np.ndarray:
    """[R, 2]: where R exact runs on the bandit end."""
    task = make("games/bandit")
    data, _ = load(
        task, quality, rows=64
    )  # a stateless task: the rows only carry the constant observation
    system, ends = exact_system(name, STD[quality]), []

    def finished(index, stage, trained):
        ends.append(
            np.stack(
                [trained.evaluations[f"action_{i}"][:, -1].mean(axis=1) for i in (1, 2)], axis=-1
            )
        )

    train(
        Job(
            system,
            task.env.spec,
            cfgs,
            seeds,
            data,
            statistics(data),
            task.env,
            1,
            finished=finished,
            say=say,
        )
    )
    return ends[0]


def paper_code(name: str, beta: float, start: str = START, **more: Any) -> Any:
    """The authors' released weighting (w = sigma^2, t ~ U(0.02, 0.98)) at a beta, by plain descent until it rests."""
    small = {
        **PRESETS["paper-code"].cfg,
        "policy_batch": 512,
        "policy_steps": 6000,
        "policy_lr": 0.2,
        "chunk": 1000,
        "every": 6,
    }
    return REGISTRY[name].Config(
        **{
            **small,
            "beta": beta,
            "start": start,
            "control_variate": True,
            "policy_optimiser": "sgd",
            "policy_width": 0,
            **more,
        }
    )


def second_table(
    say: Callable = print, qualities: tuple[str, ...] = ("std0.1", "std0.3")
) -> list[dict[str, Any]]:
    """End points from (0.5, -0.48) under `paper-code` with exact scores: std x beta x system."""
    out = []
    for quality in qualities:
        ends = {
            s: exact_ends(s, quality, [paper_code(s, b) for b in BETAS], [0] * len(BETAS), say)
            for s in SYSTEMS
        }
        out += [
            {"std": STD[quality], "beta": b, **{s: ends[s][k] for s in SYSTEMS}}
            for k, b in enumerate(BETAS)
        ]
    return out


# --- the table ---


def omsd_table1(asked: Asked) -> str:
    """Table 1's bandit: published, exact and learned rewards under both presets; then the exact end points."""
    seeds, say = asked.seeds, asked.lines.say
    asked.check_unused("omsd-table1", "its cells are fixed.")
    rows = [("published", "", *(PUBLISHED[s] for s in SYSTEMS))]
    notes: dict[str, None] = {}  # of the learned scores, each once
    for preset, quality in (("mode-seeking", "std0.3"), ("paper-code", "std0.1")):
        exact = []
        for name in SYSTEMS:
            cfg = REGISTRY[name].Config(**PRESETS[preset].cfg)
            ends = exact_ends(name, quality, [cfg] * len(seeds), seeds, say)
            exact.append(_cell(ends.prod(axis=1), ends))
        rows.append((f"{preset}, exact scores", quality, *exact))
        groups = plan.resolve(
            SYSTEMS, ["games/bandit"], [quality], seeds, preset, scale=asked.scale
        )
        folder = asked.out / preset
        with cells.opened(asked, folder, preset):
            done = cells.trained(asked, groups, folder)
        learned = {r.system: _learned(r) for r in done.records}
        rows.append((f"{preset}, learned scores", quality, *(learned[s] for s in SYSTEMS)))
        notes |= dict.fromkeys(tables.notes(done.records))
    head = ("reward, mean ± std over seeds (coordinated)", "data", *SYSTEMS)
    ends = [
        (str(r["std"]), str(r["beta"]), *(f"({r[s][0]:.2f}, {r[s][1]:.2f})" for s in SYSTEMS))
        for r in second_table(say)
    ]
    return (
        f"Bandit r = a_1 a_2, {len(seeds)} seeds, starts uniform in +-0.9:\n\n{markdown(head, rows)}\n"
        f"Learned scores: mean [95 %] ± std. {' '.join(notes)}\n\n"
        f"End points from ({START}) under paper-code with exact scores:\n\n"
        f"{markdown(('data std', 'beta', *SYSTEMS), ends)}"
    )


def _learned(r: Record) -> str:
    """Return a learned policy's reward: mean, interval, spread of the seeds, share coordinated, convergence mark."""
    found = tables.interval(r, r.mean, r.mean_low, r.mean_high)
    spread = "" if r.std is None else f" ± {r.std:.2f}"
    mark = "*" if r.converged is False else ""
    return f"{found}{spread} ({r.coordinated:.0%}){mark}"


def _cell(reward: np.ndarray, ends: np.ndarray) -> str:
    together = (ends[:, 0] * ends[:, 1] > 0) & (np.abs(ends).min(axis=1) > 0.3)
    std = reward.std(ddof=1) if len(reward) > 1 else 0.0
    return f"{reward.mean():.2f} ± {std:.2f} ({together.mean():.0%})"
