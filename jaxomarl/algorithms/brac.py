"""MA-BRAC: each agent's actor-critic, held near a clone of its behaviour by a divergence that is paid for.

**Paper**. Wu et al. 2019, "Behavior Regularized Offline Reinforcement Learning", with the KL, run by every agent alone
as in DOM2's Table 4.

**Pseudo-code**. For every agent i, on its own observation, action and reward:

    1   mu: step down -mean log mu(a | o)                                       stage "behaviour" (stages/clone.py)
    2   pi <- mu
    3   for each gradient step on a batch of transitions:                       stage "policy", `step`
    4       a' ~ pibar(o')
    5       y = r + gamma (1 - d) [ min_k Qbar^k(o', a') - alpha KL(pibar || mu)(o') ]
    6       each Q^k: step down mean (Q^k(o, a) - y)^2
    7       pi: step down mean [ alpha KL(pi || mu)(o) - min_k Q^k(o, tanh(m + s z)) ], z ~ N(0, I)
    8       targets follow with polyak

**Differs**. The paper tries divergences and finds none much better; this is its KL, from policy to behaviour. Policies
are normals under a tanh, and as a tanh can be undone, their KL is that of the two normals: line 7 has it in closed
form, where the released code averages log-densities of four samples, cut off near the edge of the box. The penalty
stands in line 5 too (BRAC-v); value_penalty=False leaves it to the policy (BRAC-p). Line 2 is what 20,000 first steps
of the KL alone are for, the released code's warm start. Line 4 takes the target policy, as the other systems here do.
alpha is fixed, where the code may also fit it to a wished divergence; there is no bonus for entropy. Its default is
ours, for rewards of tens a step: at the released 0.1 policies of the particle tasks leave their data. Own critic, own
reward (`reward`="team" for the team's). DOM2 prints no settings of its MA-BRAC.

**Checked**. tests/probes/test_brac.py (the penalty is the KL, on normals and on their actions; targets written apart;
alpha from clone to critic), tests/contract.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxomarl.base import Algorithm, Dataset, Environment, Past, Spec, Stage, System
from jaxomarl.config import config, static, traced
from jaxomarl.losses.gaussian import divergence, squashed
from jaxomarl.optim import Params
from jaxomarl.policies.gaussian import mode, network, normal
from jaxomarl.stages import clone, decentralised
from jaxomarl.stages.decentralised import AgentBatch, Learner, critic_step, networks, policy_step

BEHAVIOUR = ("clone_steps", "clone_batch", "clone_lr", "policy_width", "clip", "chunk", "normalise")


@config
class Config(decentralised.Gaussian, decentralised.Config):
    """MA-BRAC's settings."""

    alpha: float = traced(default=10.0, within="[0, inf)")
    """Price of the divergence, in units of reward; larger stays nearer to the behaviour."""
    value_penalty: bool = static(default=True)
    """Whether the targets also charge the divergence at the next observation."""
    polyak: float = traced(default=0.005, within="(0, 1]")
    clone_steps: int = static(default=10_000, scaled="steps")
    """Gradient steps of the behaviour clone, which is as wide as the policy."""
    clone_batch: int = static(default=1024)
    """Transitions in a batch of the behaviour clone's updates."""
    clone_lr: float = traced(default=5e-4, within="(0, inf)")
    """Learning rate of the behaviour clone."""


def behaviour(spec: Spec, cfg: Config) -> Algorithm:
    """The behaviour's stage: line 1."""
    return clone.gaussian(
        spec,
        dataclasses.replace(cfg, policy_batch=cfg.clone_batch, policy_lr=cfg.clone_lr),
        acts=False,
    )


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """The actor-critic's stage: lines 2 to 8."""
    net = network(spec, cfg)
    nets = networks(spec, cfg, net)

    # line 3, for one agent
    def step(
        key: Key[Array, ""], state: Learner, batch: AgentBatch, behaved: Params
    ) -> tuple[Learner, dict[str, Array]]:
        k_after, k_play = jax.random.split(key)
        shape = batch.action.shape

        def drawn(key, params, obs):
            """An action at each observation, and the divergence there."""
            pi, mu = normal(net, params, obs), normal(net, behaved, obs)
            return squashed(pi, jax.random.normal(key, shape), batch.mask), divergence(
                pi, mu, batch.mask
            )

        after, price = drawn(k_after, state.actor.target, batch.next_obs)  # line 4
        charged = batch.reward - cfg.gamma * batch.go_on * cfg.alpha * price  # line 5
        paid = batch._replace(reward=charged) if cfg.value_penalty else batch
        state, judged = critic_step(cfg, nets, state, paid, after)  # line 6

        def loss(params):  # line 7
            a, kl = drawn(k_play, params, batch.obs)
            q = nets.q.apply(state.critic.params, batch.obs, a).min(axis=0)
            return jnp.mean(cfg.alpha * kl - q), {"divergence": kl.mean(), "q_played": q.mean()}

        state, metrics = policy_step(cfg, nets, state, loss)  # lines 7 and 8
        return state, judged | metrics

    play = lambda key, state, obs, mask: mode(net, state.actor.params, obs, mask)
    algorithm = decentralised.learner(
        spec, cfg, nets, step, play, lambda past, batch: past["behaviour"].params
    )

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Learner:  # line 2
        state, mu = algorithm.init(key, past, data), past["behaviour"].params
        return state._replace(actor=state.actor._replace(params=mu, target=mu))

    return algorithm._replace(init=init)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that it cannot train on."""
    decentralised.check(spec, cfg, data, decentralised.CHOICES)


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """Behaviour -> actor-critic."""
    return (
        Stage(
            "behaviour",
            behaviour(spec, cfg),
            cfg.clone_steps,
            cfg.chunk,
            cfg.every,
            BEHAVIOUR,
            owner="brac",
        ),
        Stage("policy", policy(spec, cfg), cfg.policy_steps, cfg.chunk, cfg.every, owner="brac"),
    )


BRAC = System(Config, check, lambda spec, cfg, data: data, pipeline)
