"""MA-BRAC: each agent's actor-critic pays for its divergence from a clone of its behaviour.

**Paper**. Wu et al. 2019, "Behavior Regularized Offline Reinforcement Learning", with the KL, run
by every agent alone as in DOM2's Table 4.

**Pseudo-code**. For every agent i, on its own observation, action and reward:

    1   mu: step down -mean log mu(a | o)                     stage "behaviour" (stages/clone.py)
    2   pi <- mu
    3   for each gradient step on a batch of transitions:     stage "policy", `step`
    4       a' ~ pibar(o')
    5       y = r + gamma (1 - d) [ min_k Qbar^k(o', a') - alpha KL(pibar || mu)(o') ]
    6       each Q^k: step down mean (Q^k(o, a) - y)^2
    7       pi: step down mean [ alpha KL(pi || mu)(o) - min_k Q^k(o, tanh(m + s z)) ], z ~ N(0, I)
    8       targets follow with polyak

**Differs**.

- The paper tries several divergences and finds none much better. We have its KL, from the policy to
  the behaviour.
- Policies are normals under a tanh. A tanh can be inverted, so their KL is that of the two normals,
  and line 7 has it in closed form. The released code averages the log-densities of four samples and
  cuts them off near the edge of the box.
- The penalty stands in line 5 too (BRAC-v). `value_penalty=False` leaves it to the policy (BRAC-p).
- The released code starts with 20,000 steps on the KL alone. Line 2 copies the clone instead.
- Line 4 takes the target policy, as the other systems here do.
- alpha is fixed; the released code can also fit it to a given divergence. Its default is ours, for
  rewards of tens per step: with the released 0.1, policies of the particle tasks leave their data.
- There is no entropy bonus.
- Each agent has its own critic and its own reward (`reward="team"` for the team's).
- DOM2 prints no settings of its MA-BRAC.

**Checked**. tests/probes/test_brac.py (the penalty is the KL, on normals and on their actions;
targets against a separate implementation; alpha from clone to critic), tests/contract.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Environment, Past, Spec, Stage, System
from jaxomarl.config import config, static, traced
from jaxomarl.data.dataset import as_is
from jaxomarl.losses.gaussian import divergence, squashed
from jaxomarl.optim import Params
from jaxomarl.policies.gaussian import deterministic_action, gaussian_network, policy_normal
from jaxomarl.stages import clone, decentralised
from jaxomarl.stages.decentralised import (
    ActorCritic,
    AgentBatch,
    agent_networks,
    critic_step,
    policy_step,
)

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


def behaviour_clone(spec: Spec, cfg: Config) -> Algorithm:
    """Build the first stage: each agent's Gaussian behaviour model (line 1)."""
    own = dataclasses.replace(cfg, policy_batch=cfg.clone_batch, policy_lr=cfg.clone_lr)
    return clone.gaussian_cloning_learner(spec, own, acts=False)


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """Build the second stage: each agent's actor-critic (lines 2 to 8)."""
    net = gaussian_network(spec, cfg)
    nets = agent_networks(spec, cfg, net)

    # line 3, for one agent
    def step(
        key: Key[Array, ""], state: ActorCritic, batch: AgentBatch, behaviour: Params
    ) -> tuple[ActorCritic, dict[str, Array]]:
        k_next, k_action = jax.random.split(key)

        def action_and_divergence(key, params, obs):
            pi = policy_normal(net, params, obs)
            mu = policy_normal(net, behaviour, obs)
            noise = jax.random.normal(key, batch.action.shape)
            return squashed(pi, noise, batch.mask), divergence(pi, mu, batch.mask)

        # --- critics: lines 4-6 ---
        next_action, next_kl = action_and_divergence(k_next, state.actor.target, batch.next_obs)
        charged = batch.reward - cfg.gamma * batch.go_on * cfg.alpha * next_kl
        penalised = batch._replace(reward=charged) if cfg.value_penalty else batch
        state, critic_metrics = critic_step(cfg, nets, state, penalised, next_action)

        # --- policy: line 7 ---
        def loss(params):
            action, kl = action_and_divergence(k_action, params, batch.obs)
            q = nets.q.apply(state.critic.params, batch.obs, action).min(axis=0)
            return jnp.mean(cfg.alpha * kl - q), {"divergence": kl.mean(), "q_played": q.mean()}

        # lines 7 and 8
        return policy_step(cfg, nets, state, loss, critic_metrics)

    def play(key, state, obs, mask):
        return deterministic_action(net, state.actor.params, obs, mask)

    def behaviours(past: Past, batch: Batch) -> Params:
        return past["behaviour"].params

    algorithm = decentralised.actor_critic_learner(spec, cfg, nets, step, play, behaviours)

    # line 2
    def init(key: Key[Array, ""], past: Past, data: Dataset) -> ActorCritic:
        state = algorithm.init(key, past, data)
        mu = past["behaviour"].params
        return state._replace(actor=state.actor._replace(params=mu, target=mu))

    return algorithm._replace(init=init)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that MA-BRAC cannot train on."""
    decentralised.check(spec, cfg, data, decentralised.CHOICES)


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """Two stages: behaviour -> actor-critic."""
    learner = behaviour_clone(spec, cfg)
    behaviour_stage = Stage.from_config(
        cfg,
        "behaviour",
        learner,
        cfg.clone_steps,
        fields=BEHAVIOUR,
        owner="brac",
        health=clone.gaussian_health(spec, cfg, ("clone_steps", "clone_batch", "policy_width")),
    )
    final = policy(spec, cfg)
    compared = decentralised.actor_critic_health(spec, cfg, final)
    policy_stage = Stage.from_config(
        cfg, "policy", final, cfg.policy_steps, owner="brac", health=compared
    )
    return behaviour_stage, policy_stage


BRAC = System(Config, check, as_is, pipeline)
