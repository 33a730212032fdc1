"""Games whose data have several modes: the two-mode bandit with its exact scores, consensus, four Gaussians.

Rules are written for one joint action; the oracles are pure functions of arrays that broadcast.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxomarl.base import Behaviours, Task, refuse
from jaxomarl.envs import stored
from jaxomarl.envs.stateless import EPISODES, Draw, one_step_recipe, stateless

BANDIT_MODE = 0.8
BANDIT_STDS = {"std0.1": 0.1, "std0.3": 0.3, "sqrt0.3": math.sqrt(0.3)}
COORDINATED = 0.3  # both actions are further than this from zero, on the same side


def _mixture(modes: np.ndarray, mass: np.ndarray, std: float) -> Draw:
    """Joint actions [M, N, 1] from the Gaussian mixture of `modes` [modes, N], clamped to [-1, 1]."""

    def draw(key: Key[Array, ""], rows: int) -> tuple[Float[Array, "M N 1"], Int[Array, " M"]]:
        k_mode, k_noise = jax.random.split(key)
        mode = jax.random.choice(k_mode, len(modes), (rows,), p=jnp.asarray(mass, jnp.float32))
        noise = std * jax.random.normal(k_noise, (rows, modes.shape[1]))
        return jnp.clip(jnp.asarray(modes, jnp.float32)[mode] + noise, -1.0, 1.0)[..., None], mode

    return draw


def _known(modes: np.ndarray, mass: np.ndarray, std: float) -> Callable[[], Behaviours]:
    """Who makes the data that `_mixture` draws."""
    return lambda: stored.constant(modes[..., None], mass, std, obs=1)


# --- bandit ---


def bandit() -> Task:
    """Two agents, r = a_1 a_2; the data coordinate on (0.8, 0.8) or on (-0.8, -0.8), half of the rows each.

    Qualities name the data's standard deviation about a mode: the OMSD paper says 0.3 ("variance") and its code uses
    0.1, so 0.1, 0.3 and sqrt(0.3) are here. Source: OMSD (Offline MARL with Sequential Score Decomposition), bandit.
    """

    def rule(action: Float[Array, "2 1"]) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        x, y = action[0, 0], action[1, 0]
        together = (x * y > 0) & (jnp.minimum(jnp.abs(x), jnp.abs(y)) > COORDINATED)
        return x * y, {"coordinated": together.astype(jnp.float32), "action_1": x, "action_2": y}

    env = stateless((1, 1), rule)
    modes = np.array([[BANDIT_MODE] * 2, [-BANDIT_MODE] * 2])
    mass = np.array([0.5, 0.5])
    recipes = {
        name: one_step_recipe(env, _mixture(modes, mass, std)) for name, std in BANDIT_STDS.items()
    }
    known = {name: _known(modes, mass, std) for name, std in BANDIT_STDS.items()}
    about = "r = a_1 a_2, data at (0.8, 0.8) and (-0.8, -0.8); optimum 1 at (1, 1) and (-1, -1)"
    return Task(
        "games/bandit",
        env,
        recipes,
        quality="std0.3",
        optimum=1.0,
        about=about,
        episodes=EPISODES,
        behaviours=known,
    )


Eps = Callable[..., Array]
"""(x, alpha, sigma, prefix=0.0) -> noise prediction, of x's shape."""


def bandit_eps(kind: str, std: float, mean: float = BANDIT_MODE) -> Eps:
    """The exact noise prediction -sigma grad log mu_t of the bandit's data (before clamping) at alpha(t), sigma(t).

    eps(x) = sigma (x - alpha m tanh(alpha m x / v + h)) / v, v = alpha^2 s^2 + sigma^2: "marginal" has h = 0, and
    "conditional" is agent 2 given the clean a_1 = prefix, h = m a_1 / s^2; x, alpha, sigma and prefix broadcast.
    "joint" takes x [*B, 2] and has one tanh, of alpha m (x_1 + x_2) / v; there alpha and sigma broadcast with [*B, 1].
    Raises JaxomarlError for another kind. Source: the two-component Gaussian mixture at +-mean, diffused.
    """
    if kind not in ("marginal", "conditional", "joint"):
        raise refuse(
            "bandit_eps.kind",
            '"marginal", "conditional" or "joint"',
            kind,
            "Name one of the three models.",
        )

    def eps(
        x: Array, alpha: Array | float, sigma: Array | float, prefix: Array | float = 0.0
    ) -> Array:
        v = alpha**2 * std**2 + sigma**2
        side = jnp.sum(x, axis=-1, keepdims=True) if kind == "joint" else x
        h = mean * prefix / std**2 if kind == "conditional" else 0.0
        return sigma * (x - alpha * mean * jnp.tanh(alpha * mean * side / v + h)) / v

    return eps


def bandit_own_value(action: Array, std: float, mean: float = BANDIT_MODE) -> Array:
    """The exact own critic E[r | a_i] = a_i m tanh(m a_i / s^2), the other agent's action averaged over the data."""
    return action * mean * jnp.tanh(mean * action / std**2)


def bandit_own_gradient(action: Array, std: float, mean: float = BANDIT_MODE) -> Array:
    """The own critic's gradient, m tanh(u) + u m sech^2(u) with u = m a_i / s^2: what an independent learner climbs."""
    u = mean * action / std**2
    return mean * (jnp.tanh(u) + u * (1.0 - jnp.tanh(u) ** 2))


# --- consensus ---


def consensus(n: int = 3, modes: int = 2, std: float = 0.0, discrete: bool = False) -> Task:
    """All `n` agents pick one of `modes` levels; the team's reward is 1 where all agree, else 0.

    Continuous actions are decoded to the nearest of `modes` levels evenly spaced in [-0.8, 0.8]; discrete ones are
    one-hot over them. Data: a level drawn uniformly (the behaviour) and played by every agent, plus N(0, std^2),
    clamped. Raises JaxomarlError where n or modes is less than 2 or std does not apply.
    Source: OMSD, coordinated-modes proposition (CMS).
    """
    for field, value in (("n", n), ("modes", modes)):
        if value < 2:
            raise refuse(
                f"games/consensus, {field}",
                "at least 2",
                value,
                "One agent or one mode has no one to match.",
            )
    if std < 0 or (discrete and std > 0):
        expected = "0 where actions are discrete" if discrete else "at least 0"
        raise refuse(
            "games/consensus, std", expected, std, "It is the noise on continuous actions."
        )

    def rule(action: Float[Array, "N A"]) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        level = consensus_levels(action, modes, discrete)
        agree = jnp.all(level == level[0])
        info = {
            "coordinated": agree.astype(jnp.float32),
            "level": jnp.where(agree, level[0], -1).astype(jnp.float32),
        }
        return agree.astype(jnp.float32), info

    def draw_discrete(
        key: Key[Array, ""], rows: int
    ) -> tuple[Float[Array, "M N A"], Int[Array, " M"]]:
        mode = jax.random.randint(key, (rows,), 0, modes)
        return jnp.repeat(jax.nn.one_hot(mode, modes)[:, None], n, axis=1), mode

    env = stateless((modes if discrete else 1,) * n, rule, discrete)
    played = np.repeat(_levels(modes)[:, None], n, axis=1)
    mass = np.full(modes, 1 / modes)
    draw = draw_discrete if discrete else _mixture(played, mass, std)
    known = {"default": _known(played, mass, std)} if std > 0 else {}
    about = (
        f"{n} agents agree on one of {modes} levels; optimum 1 at each of the {modes} agreements"
    )
    return Task(
        "games/consensus",
        env,
        {"default": one_step_recipe(env, draw)},
        "default",
        optimum=1.0,
        about=about,
        episodes=EPISODES,
        behaviours=known,
    )


def _levels(modes: int) -> np.ndarray:
    return np.linspace(-BANDIT_MODE, BANDIT_MODE, modes)


def consensus_levels(
    action: Float[Array, "*B A"], modes: int, discrete: bool = False
) -> Int[Array, "*B"]:
    """Which level each agent's action picks: the nearest one, or the one-hot's index."""
    if discrete:
        return jnp.argmax(action, axis=-1)
    return jnp.argmin(jnp.abs(action - jnp.asarray(_levels(modes), action.dtype)), axis=-1)


def joint_distribution(
    levels: Int[Array, "M N"] | Int[np.ndarray, "M N"], modes: int
) -> Float[np.ndarray, "*K"]:
    """Frequencies of the joint levels by enumeration: one axis of `modes` entries per agent."""
    index = np.asarray(levels)
    shape = (modes,) * index.shape[1]
    counts = np.bincount(np.ravel_multi_index(tuple(index.T), shape), minlength=modes ** len(shape))
    return counts.reshape(shape) / len(index)


def consensus_distribution(n: int, modes: int, std: float = 0.0) -> Float[np.ndarray, "*K"]:
    """Exact joint distribution of the recipe's levels: sum_k 1/K prod_i P(agent i is decoded to its level | k)."""
    levels = _levels(modes)
    edges = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]])
    decoded = np.eye(modes)
    if std > 0:
        below = np.vectorize(lambda z: 0.5 * (1 + math.erf(z / math.sqrt(2))))(
            (edges - levels[:, None]) / std
        )
        decoded = np.diff(below, axis=1)
    return sum((_outer([row] * n) for row in decoded), np.zeros((modes,) * n)) / modes


def product_of_marginals(joint: Float[np.ndarray, "*K"]) -> Float[np.ndarray, "*K"]:
    """prod_i p_i, where p_i is the marginal of the joint distribution's axis i: what independent learners fit."""
    axes = range(joint.ndim)
    return _outer([joint.sum(axis=tuple(j for j in axes if j != i)) for i in axes])


def _outer(factors: list[np.ndarray]) -> np.ndarray:
    out = np.ones(())
    for factor in factors:
        out = np.multiply.outer(out, factor)
    return out


def total_variation(p: Float[np.ndarray, "*K"], q: Float[np.ndarray, "*K"]) -> float:
    """1/2 sum |p - q|."""
    return float(np.abs(p - q).sum() / 2)


def mutual_information(joint: Float[np.ndarray, "*K"]) -> float:
    """KL(p || product of its marginals), in nats (the total correlation where there are more than two agents)."""
    product, seen = product_of_marginals(joint), joint > 0
    return float((joint[seen] * np.log(joint[seen] / product[seen])).sum())


def cms_total_variation(n: int, modes: int) -> float:
    """Total variation of K equiprobable agreements from their product of marginals: 1 - K^(1 - n)."""
    return 1.0 - float(modes) ** (1 - n)


# --- four Gaussians ---

QUADRANTS = ("top-left", "top-right", "bottom-left", "bottom-right")
FOUR_MODES = np.array([[-0.75, 0.75], [0.75, 0.75], [-0.75, -0.75], [0.75, -0.75]])
FOUR_MASS = np.array([0.5, 0.2, 0.2, 0.1])
FOUR_VARIANCE = 0.05


def four_gaussians() -> Task:
    """Agent 1 picks x, agent 2 picks y; the reward is the data's mass in the mode of their quadrant.

    The reward is our choice: the source states only the data, a mixture at (-+0.75, +-0.75) of masses 0.5, 0.2, 0.2
    and 0.1 and variance 0.05 (its printed mean of the bottom-right mode is a typo). The joint is nearly independent
    (total variation 0.02 from its product of marginals), so that it does not tell factorised from joint models.
    Source: DoF (Diffusion Factorisation), illustrative games.
    """

    def rule(action: Float[Array, "2 1"]) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        quadrant = (action[0, 0] >= 0).astype(jnp.int32) + 2 * (action[1, 0] < 0)
        return jnp.asarray(FOUR_MASS, jnp.float32)[quadrant], {
            "quadrant": quadrant.astype(jnp.float32)
        }

    env = stateless((1, 1), rule)
    std = math.sqrt(FOUR_VARIANCE)
    recipe = one_step_recipe(env, _mixture(FOUR_MODES, FOUR_MASS, std))
    known = {"default": _known(FOUR_MODES, FOUR_MASS, std)}
    about = f"reward = mass of the quadrant ({', '.join(QUADRANTS)}: 0.5, 0.2, 0.2, 0.1); optimum 0.5, top-left"
    return Task(
        "games/four-gaussians", env, {"default": recipe}, "default", optimum=0.5, about=about, episodes=EPISODES,
        behaviours=known,
    )  # fmt: skip


def four_gaussians_joint() -> Float[np.ndarray, "2 2"]:
    """Masses of the modes by (agent 1 is left, right; agent 2 is top, bottom)."""
    return FOUR_MASS.reshape(2, 2).T
