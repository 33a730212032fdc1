"""Games whose data have several modes.

They are the two-mode bandit with its exact scores, consensus, and four Gaussians. Rules are written
for one joint action. The exact answers are pure functions of arrays that broadcast.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxomarl.base import Behaviours, Task, refuse
from jaxomarl.envs import stored
from jaxomarl.envs.stateless import EPISODES, Actions, Draw, Payoff, one_step_recipe, stateless

BANDIT_MODE = 0.8
BANDIT_STDS = {"std0.1": 0.1, "std0.3": 0.3, "sqrt0.3": math.sqrt(0.3)}
COORDINATED = 0.3
"""Actions are coordinated where both are on one side of zero and farther from it than this."""


def _mixture(modes: np.ndarray, mass: np.ndarray, std: float) -> Draw:
    """Joint actions from the Gaussian mixture of `modes` [modes, N], clamped to [-1, 1]."""

    def draw(key: Key[Array, ""], rows: int) -> Actions:
        k_mode, k_noise = jax.random.split(key)
        p = jnp.asarray(mass, jnp.float32)
        mode = jax.random.choice(k_mode, len(modes), (rows,), p=p)
        noise = std * jax.random.normal(k_noise, (rows, modes.shape[1]))
        action = jnp.clip(jnp.asarray(modes, jnp.float32)[mode] + noise, -1.0, 1.0)
        return action[..., None], mode

    return draw


def _known(modes: np.ndarray, mass: np.ndarray, std: float) -> Callable[[], Behaviours]:
    """The behaviours whose data `_mixture` samples."""
    return lambda: stored.constant(modes[..., None], mass, std, obs=1)


# --- bandit ---


def bandit() -> Task:
    """Two agents, r = a_1 a_2; the data coordinate on (0.8, 0.8) or on (-0.8, -0.8).

    Each mode has half of the rows. Qualities name the data's standard deviation about a mode. The
    OMSD paper says 0.3 ("variance") and its code uses 0.1, so 0.1, 0.3 and sqrt(0.3) are here.
    Source: OMSD (Offline MARL with Sequential Score Decomposition), bandit.
    """

    def rule(action: Float[Array, "2 1"]) -> Payoff:
        x = action[0, 0]
        y = action[1, 0]
        same_side = x * y > 0
        weaker = jnp.minimum(jnp.abs(x), jnp.abs(y))
        together = same_side & (weaker > COORDINATED)
        reward = x * y
        info = {"coordinated": together.astype(jnp.float32), "action_1": x, "action_2": y}
        return reward, info

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
    """The exact noise prediction -sigma grad log mu_t of the bandit's data, before clamping.

        eps(x) = sigma (x - alpha m tanh(alpha m x / v + h)) / v,  v = alpha^2 s^2 + sigma^2

    - "marginal" has h = 0.
    - "conditional" is agent 2 given the clean a_1 = prefix, with h = m a_1 / s^2.
    - "joint" takes x [*B, 2] and has one tanh, of alpha m (x_1 + x_2) / v.

    x, alpha, sigma and prefix broadcast; for "joint", alpha and sigma broadcast with [*B, 1].
    Raises JaxomarlError for another kind. Source: the two-component Gaussian mixture at +-mean,
    diffused.
    """
    if kind not in ("marginal", "conditional", "joint"):
        expected = '"marginal", "conditional" or "joint"'
        raise refuse("bandit_eps.kind", expected, kind, "Name one of the three models.")

    def eps(
        x: Array, alpha: Array | float, sigma: Array | float, prefix: Array | float = 0.0
    ) -> Array:
        v = alpha**2 * std**2 + sigma**2
        side = x
        h = 0.0
        if kind == "joint":
            side = jnp.sum(x, axis=-1, keepdims=True)
        if kind == "conditional":
            h = mean * prefix / std**2
        return sigma * (x - alpha * mean * jnp.tanh(alpha * mean * side / v + h)) / v

    return eps


def bandit_own_value(action: Array, std: float, mean: float = BANDIT_MODE) -> Array:
    """The exact own critic E[r | a_i] = a_i m tanh(m a_i / s^2).

    The other agent's action is averaged over the data.
    """
    return action * mean * jnp.tanh(mean * action / std**2)


def bandit_own_gradient(action: Array, std: float, mean: float = BANDIT_MODE) -> Array:
    """The own critic's gradient, m tanh(u) + u m sech^2(u) with u = m a_i / s^2.

    An independent learner climbs it.
    """
    u = mean * action / std**2
    return mean * (jnp.tanh(u) + u * (1.0 - jnp.tanh(u) ** 2))


# --- consensus ---


def consensus(n: int = 3, modes: int = 2, std: float = 0.0, discrete: bool = False) -> Task:
    """All `n` agents pick one of `modes` levels; the team's reward is 1 where all agree, else 0.

    Continuous actions are decoded to the nearest of `modes` levels evenly spaced in [-0.8, 0.8];
    discrete actions are one-hot over them. In the data a level is drawn uniformly (the behaviour)
    and taken by every agent; continuous actions have noise N(0, std^2) and are clamped. Raises
    JaxomarlError where n or modes is less than 2 or std does not apply.
    Source: OMSD, coordinated-modes proposition (CMS).
    """
    for field, value in (("n", n), ("modes", modes)):
        if value < 2:
            way = "One agent or one mode has no one to match."
            raise refuse(f"games/consensus, {field}", "at least 2", value, way)
    if std < 0 or (discrete and std > 0):
        expected = "0 where actions are discrete" if discrete else "at least 0"
        way = "It is the noise on continuous actions."
        raise refuse("games/consensus, std", expected, std, way)

    def rule(action: Float[Array, "N A"]) -> Payoff:
        level = consensus_levels(action, modes, discrete)
        agree = jnp.all(level == level[0])
        info = {
            "coordinated": agree.astype(jnp.float32),
            "level": jnp.where(agree, level[0], -1).astype(jnp.float32),
        }
        return agree.astype(jnp.float32), info

    def draw_discrete(key: Key[Array, ""], rows: int) -> Actions:
        mode = jax.random.randint(key, (rows,), 0, modes)
        return jnp.repeat(jax.nn.one_hot(mode, modes)[:, None], n, axis=1), mode

    width = modes if discrete else 1
    env = stateless((width,) * n, rule, discrete)
    agreements = np.repeat(_levels(modes)[:, None], n, axis=1)
    mass = np.full(modes, 1 / modes)
    draw = _mixture(agreements, mass, std)
    if discrete:
        draw = draw_discrete
    recipes = {"default": one_step_recipe(env, draw)}
    known = {}
    if std > 0:
        known["default"] = _known(agreements, mass, std)
    about = (
        f"{n} agents agree on one of {modes} levels; optimum 1 at each of the {modes} agreements"
    )
    return Task(
        "games/consensus",
        env,
        recipes,
        "default",
        optimum=1.0,
        about=about,
        episodes=EPISODES,
        behaviours=known,
    )


def _levels(modes: int) -> np.ndarray:
    """The levels as continuous actions."""
    return np.linspace(-BANDIT_MODE, BANDIT_MODE, modes)


def consensus_levels(
    action: Float[Array, "*B A"], modes: int, discrete: bool = False
) -> Int[Array, "*B"]:
    """The level that each agent's action picks: the nearest one, or the one-hot's index."""
    if discrete:
        return jnp.argmax(action, axis=-1)
    levels = jnp.asarray(_levels(modes), action.dtype)
    return jnp.argmin(jnp.abs(action - levels), axis=-1)


def joint_distribution(
    levels: Int[Array, "M N"] | Int[np.ndarray, "M N"], modes: int
) -> Float[np.ndarray, "*K"]:
    """Frequencies of the joint levels by enumeration: one axis of `modes` entries per agent."""
    index = np.asarray(levels)
    shape = (modes,) * index.shape[1]
    cell = np.ravel_multi_index(tuple(index.T), shape)
    counts = np.bincount(cell, minlength=modes ** len(shape))
    return counts.reshape(shape) / len(index)


def consensus_distribution(n: int, modes: int, std: float = 0.0) -> Float[np.ndarray, "*K"]:
    """Exact joint distribution of the recipe's levels.

    It is sum_k 1/K prod_i P(agent i is decoded to its level | k).
    """
    levels = _levels(modes)
    middles = (levels[1:] + levels[:-1]) / 2
    edges = np.concatenate([[-np.inf], middles, [np.inf]])
    decoded = np.eye(modes)
    if std > 0:
        below = np.vectorize(_normal_cdf)((edges - levels[:, None]) / std)
        decoded = np.diff(below, axis=1)
    empty = np.zeros((modes,) * n)
    return sum((_outer([row] * n) for row in decoded), empty) / modes


def _normal_cdf(z: float) -> float:
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


def product_of_marginals(joint: Float[np.ndarray, "*K"]) -> Float[np.ndarray, "*K"]:
    """The product prod_i p_i, where p_i is the marginal of the joint distribution's axis i.

    Independent learners fit it.
    """
    marginals = []
    for i in range(joint.ndim):
        others = tuple(j for j in range(joint.ndim) if j != i)
        marginals.append(joint.sum(axis=others))
    return _outer(marginals)


def _outer(factors: list[np.ndarray]) -> np.ndarray:
    """The outer product of all factors."""
    out = np.ones(())
    for factor in factors:
        out = np.multiply.outer(out, factor)
    return out


def total_variation(p: Float[np.ndarray, "*K"], q: Float[np.ndarray, "*K"]) -> float:
    """The total variation 1/2 sum |p - q|."""
    return float(np.abs(p - q).sum() / 2)


def mutual_information(joint: Float[np.ndarray, "*K"]) -> float:
    """KL(p || product of its marginals), in nats.

    It is the total correlation where there are more than two agents.
    """
    product = product_of_marginals(joint)
    possible = joint > 0
    p = joint[possible]
    return float((p * np.log(p / product[possible])).sum())


def cms_total_variation(n: int, modes: int) -> float:
    """Total variation of K equiprobable agreements from the product of marginals: 1 - K^(1 - n)."""
    return 1.0 - float(modes) ** (1 - n)


# --- four Gaussians ---

QUADRANTS = ("top-left", "top-right", "bottom-left", "bottom-right")
FOUR_MODES = np.array([[-0.75, 0.75], [0.75, 0.75], [-0.75, -0.75], [0.75, -0.75]])
FOUR_MASS = np.array([0.5, 0.2, 0.2, 0.1])
FOUR_VARIANCE = 0.05


def four_gaussians() -> Task:
    """Agent 1 picks x, agent 2 picks y; the reward is the data's mass in their quadrant's mode.

    The reward is our choice. The source states only the data, a mixture at (-+0.75, +-0.75) of
    masses 0.5, 0.2, 0.2 and 0.1 and variance 0.05; its printed mean of the bottom-right mode is a
    typo. The joint distribution is nearly independent: its total variation from the product of its
    marginals is 0.02. So it does not tell factorised from joint models.
    Source: DoF (Diffusion Factorisation), illustrative games.
    """

    def rule(action: Float[Array, "2 1"]) -> Payoff:
        column = (action[0, 0] >= 0).astype(jnp.int32)
        row = action[1, 0] < 0
        quadrant = column + 2 * row
        reward = jnp.asarray(FOUR_MASS, jnp.float32)[quadrant]
        return reward, {"quadrant": quadrant.astype(jnp.float32)}

    env = stateless((1, 1), rule)
    std = math.sqrt(FOUR_VARIANCE)
    recipe = one_step_recipe(env, _mixture(FOUR_MODES, FOUR_MASS, std))
    masses = f"{', '.join(QUADRANTS)}: 0.5, 0.2, 0.2, 0.1"
    return Task(
        "games/four-gaussians",
        env,
        {"default": recipe},
        "default",
        optimum=0.5,
        about=f"reward = mass of the quadrant ({masses}); optimum 0.5, top-left",
        episodes=EPISODES,
        behaviours={"default": _known(FOUR_MODES, FOUR_MASS, std)},
    )


def four_gaussians_joint() -> Float[np.ndarray, "2 2"]:
    """Masses of the modes by (agent 1 is left, right; agent 2 is top, bottom)."""
    return FOUR_MASS.reshape(2, 2).T
