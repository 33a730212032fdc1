"""OMAR: MA-CQL whose policies also imitate the best action of a random search.

**Paper**. Pan et al. 2022, "Plan Better Amid Conservatism: Offline Multi-Agent Reinforcement
Learning with Actor Rectification", Algorithm 1.

**Pseudo-code**. For every agent i, on its own observation, action and reward:

    1   for each gradient step on a batch of transitions:     stage "policy", `update`
    2       the critics' step of MA-CQL (algorithms/cql.py, lines 2-4)
    3       for every observation o of the batch, from mu = 0, sigma = 2:     `search`
    4           repeat: a_k ~ N(mu, sigma^2), clipped to the box; fit mu and sigma to the a_k
                    and Q^1(o, a_k)
    5           a* = the best under Q^1 of the last a_k and pi(o)
    6       pi: step down c mean (pi(o) - sg a*)^2 - (1 - c) mean Q^1(o, pi(o)) + 1e-3 mean pi(o)^2
    7       targets follow with polyak

Line 4 has two fits. `search="softmax"`, for the particle tasks: mu = sum_k softmax(Q^1)_k a_k and
sigma^2 = mean_k (a_k - mu)^2. `search="elites"`, for HalfCheetah: the mean and deviation of the
best few so far.

**Differs**.

- The critics differ as those of MA-CQL do: we subtract log-densities where the released code
  subtracts densities, cut noise off at the box, and standardise observations once.
- Padded action columns are zero in every candidate.
- The search of the paper runs for one state after another. Here all states and agents are searched
  side by side.

**Checked**. tests/probes/test_cql_omar.py (both searches against separate implementations, on a
concave hill and out of a local optimum; never below pi(o); c = 0 is MA-CQL step for step),
tests/contract.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Dataset, Spec, System, one_stage, refuse
from jaxomarl.config import config, static, traced
from jaxomarl.data.dataset import as_is
from jaxomarl.stages import decentralised
from jaxomarl.stages.decentralised import ActorCritic, AgentBatch, Stepped, cql_step, policy_step

START_STD = 2.0
"""First standard deviation of the search: wider than the box."""
CHOICES = {**decentralised.DETERMINISTIC_CHOICES, "search": ("softmax", "elites")}


@config
class Config(decentralised.Deterministic):
    """OMAR's settings; the defaults are for the particle tasks."""

    coefficient: float = traced(default=0.7, within="[0, 1]")
    """c: weight of the imitation of the best action; the gradient of Q has 1 - c."""
    search: str = static(default="softmax")
    """How the search refits. softmax: to all candidates, weighted by softmax(Q). elites: to the
    best few."""
    iterations: int = static(default=3)
    """Iterations of the search for a better action."""
    candidates: int = static(default=10)
    """Actions that each iteration of the search samples."""
    elites: int = static(default=5)
    """Number of best actions that a search by elites refits to."""


def search(
    cfg: Config,
    value: Callable[[Array], Array],
    action: Float[Array, "B A"],
    z: Float[Array, "I K B A"],
    mask: Array,
) -> Float[Array, "B A"]:
    """The best action found by lines 3-5, which is `action` where none is better.

    `value` maps candidates [K, B, A] to [K, B]; z is standard normal, for I iterations of K
    candidates.
    """
    mu = jnp.zeros_like(action)
    sigma = jnp.full_like(action, START_STD)
    elites = action[None][:0]
    pool = action[None]
    q = value(pool)

    # line 4
    for noise in z:
        new = mask * jnp.clip(mu + sigma * noise, -1.0, 1.0)
        pool = jnp.concatenate([new, elites])
        q = value(pool)
        if cfg.search == "softmax":
            mu = jnp.sum(jax.nn.softmax(q, axis=0)[..., None] * pool, axis=0)
            sigma = jnp.sqrt(jnp.mean((pool - mu) ** 2, axis=0))
        else:
            elites = best(pool, q, cfg.elites)
            mu = elites.mean(axis=0)
            sigma = elites.std(axis=0, ddof=1)

    # line 5
    candidates = jnp.concatenate([action[None], pool])
    values = jnp.concatenate([value(action[None]), q])
    return best(candidates, values, 1)[0]


def best(
    pool: Float[Array, "K B A"], q: Float[Array, "K B"], count: int
) -> Float[Array, "count B A"]:
    """The `count` actions of highest value in each state, the best first; of equals, the first."""
    top = jax.lax.top_k(q.T, count)[1].T
    return jnp.take_along_axis(pool, top[..., None], axis=0)


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """Build the learner: each agent's policy and twin critics."""
    nets = decentralised.agent_networks(spec, cfg)

    # line 1, for one agent
    def step(key: Key[Array, ""], state: ActorCritic, batch: AgentBatch) -> Stepped:
        # --- critics: line 2 ---
        state, critic_metrics = cql_step(key, cfg, nets, state, batch)

        # --- the search for a better action: lines 3-5 ---
        def play(params):
            return batch.mask * nets.actor.apply(params, batch.obs)

        def value(action):
            return nets.q.apply(state.critic.params, batch.obs, action)[0]

        shape = (cfg.iterations, cfg.candidates, *batch.action.shape)
        z = jax.random.normal(jax.random.fold_in(key, 1), shape)
        better = search(cfg, value, play(state.actor.params), z, batch.mask)

        # --- policy: line 6 ---
        def loss(params):
            action = play(params)
            distance = decentralised.effort(action - better, batch.mask)
            q = value(action[None]).mean()
            drive = cfg.coefficient * distance - (1.0 - cfg.coefficient) * q
            metrics = {"to_best": distance, "q_played": q}
            return drive + cfg.action_penalty * decentralised.effort(action, batch.mask), metrics

        # lines 6 and 7
        return policy_step(cfg, nets, state, loss, critic_metrics)

    return decentralised.actor_critic_learner(spec, cfg, nets, step, nets.play)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that OMAR cannot train on."""
    decentralised.check(spec, cfg, data, CHOICES)
    if cfg.search == "elites" and not 2 <= cfg.elites <= cfg.candidates:
        way = "Two are the fewest that have a deviation."
        raise refuse("--cfg.elites", f"2 to candidates = {cfg.candidates}", cfg.elites, way)


pipeline = one_stage("omar", policy, health=decentralised.actor_critic_health)
OMAR = System(Config, check, as_is, pipeline)
