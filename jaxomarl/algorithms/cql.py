"""MA-CQL: each agent's conservative critics, and a deterministic policy that climbs them.

**Paper**. Kumar et al. 2020, "Conservative Q-Learning for Offline Reinforcement Learning", Algorithm 1, run by every
agent alone as in Pan et al. 2022 (OMAR) and DOM2's tables.

**Pseudo-code**. For every agent i, on its own observation, action and reward:

    1   for each gradient step on a batch of transitions:                       stage "policy", `update`
    2       y = r + gamma (1 - d) min_k Qbar^k(o', pibar(o'))
    3       a_m ~ p_m: M uniform actions; or, penalty_from="policy", M more around pi(o) and M around pi(o')
    4       each Q^k: step down mean (Q^k(o, a) - y)^2
                + penalty mean [ log mean_m exp(Q^k(o, a_m) - log p_m(a_m)) - Q^k(o, a) ]
    5       pi: step down -mean Q^1(o, pi(o)) + 1e-3 mean pi(o)^2
    6       targets follow with polyak

**Differs**. OMAR's released code subtracts the density of the samples around the policy and not its logarithm, and
takes that of the noise before actions are clipped, which counts volume outside of the box: here the noise is cut off at
the box and its log-density subtracted (losses/conservative.py). The M that OMAR's code leaves out changes no gradient.
Observations are standardised once, from the data, where its batch normalisation mixes the statistics of data, random
and policy actions. One batch serves all agents, whose networks are separate.

**Checked**. tests/probes/test_cql_omar.py (unseen actions fall below seen ones), tests/reference/test_conservative.py
(the term by hand, its estimate of the integral), tests/contract.
"""

from jaxtyping import Array, Key

from jaxomarl.base import Algorithm, Dataset, Environment, Spec, Stage, System
from jaxomarl.config import config
from jaxomarl.stages import decentralised
from jaxomarl.stages.decentralised import (
    AgentBatch,
    Learner,
    cql_step,
    effort,
    networks,
    policy_step,
)


@config
class Config(decentralised.Deterministic):
    """MA-CQL's settings."""


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """The algorithm."""
    nets = networks(spec, cfg)

    # line 1, for one agent
    def step(
        key: Key[Array, ""], state: Learner, batch: AgentBatch
    ) -> tuple[Learner, dict[str, Array]]:
        state, judged = cql_step(key, cfg, nets, state, batch)  # lines 2-4

        def loss(params):  # line 5
            a = batch.mask * nets.actor.apply(params, batch.obs)
            q = nets.q.apply(state.critic.params, batch.obs, a)[0].mean()
            return cfg.action_penalty * effort(a, batch.mask) - q, {"q_played": q}

        state, metrics = policy_step(cfg, nets, state, loss)  # lines 5 and 6
        return state, judged | metrics

    return decentralised.learner(spec, cfg, nets, step, nets.play)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that it cannot train on."""
    decentralised.check(spec, cfg, data, decentralised.DETERMINISTIC_CHOICES)


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """One stage."""
    return (
        Stage("policy", policy(spec, cfg), cfg.policy_steps, cfg.chunk, cfg.every, owner="cql"),
    )


CQL = System(Config, check, lambda spec, cfg, data: data, pipeline)
