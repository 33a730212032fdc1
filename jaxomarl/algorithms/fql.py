"""MA-FQL: each agent's one-step policy is distilled from its own flow, and climbs its own critics.

**Paper**. Park et al. 2025, "Flow Q-Learning", Algorithm 1, run by every agent alone.

**Pseudo-code**. For every agent i, on its own observation, action and reward:

    1   v: flow matching of the agent's actions               stage "flow-own" (stages/flow.py)
    2   for each gradient step on a batch of transitions:     stage "policy", `update`
    3       z' ~ N(0, I);  a' = clip f(o', z')
    4       each Q^k: step down mean (Q^k(o, a) - r - gamma (1 - d) mean_k Qbar^k(o', a'))^2
    5       z ~ N(0, I);  g = sg clip Euler_K(v; o, z)
    6       f: step down alpha mean |f(o, z) - g|^2
                - eta mean Q(o, clip f(o, z)) / sg[ mean |Q| ],     Q the mean of the twins
    7       targets of the critics follow with polyak; the policy has none
    8   act: z ~ N(0, I), play clip f(o, z): one call

At the optimum of line 6, 2 alpha (f - g) is the gradient of the value at each z: actions are moved,
and none is re-weighted. A mode is left only where the value carries its actions over.

**Differs**.

- The flow is trained first, alone, so that all systems share it. The paper trains the three at
  once; no gradient passes between them there either.
- The value is divided by its mean size, with alpha 3. The paper's default is not, with alpha 10 and
  a choice for each task; `normalise_value=False` is that. Rewards of our tasks differ by 100 times.
- alpha weighs the distillation: larger is more cloning, as in the paper. `alpha` of td3-bc weighs
  the value.
- The critics are Mish perceptrons without layer normalisation.
- With eta = 0 the policy is the flow's distillate.

**Checked**. tests/probes/test_fql.py (fixed points of line 6; its two terms apart; critics that
follow the student and get no gradient of its loss; modes cloned and left), tests/contract.
"""

from functools import partial

import jax
from jaxtyping import Array, Key

from jaxomarl.base import Algorithm, Dataset, Environment, Past, Spec, Stage, System
from jaxomarl.config import config, traced
from jaxomarl.data.dataset import as_is, check_batch
from jaxomarl.networks.mlp import mish
from jaxomarl.optim import Params
from jaxomarl.policies.flows import (
    Flow,
    agent_velocity,
    flow_end,
    in_box,
    masked_noise,
    student_network,
)
from jaxomarl.stages import decentralised
from jaxomarl.stages import flow as flows
from jaxomarl.stages.decentralised import ActorCritic, AgentBatch, Stepped, critic_step


@config
class Config(flows.Taught, decentralised.Wide):
    """MA-FQL's settings."""

    polyak: float = traced(default=0.005, within="(0, 1]")
    """Rate at which the critics' targets follow them."""


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """Build the last stage: each agent's student and twin critics."""
    flow = Flow(agent_velocity(spec, cfg.flow_width), cfg.levels)
    student = student_network(spec.act_width, spec.act_width, spec.obs_width, cfg.policy_width)
    nets = decentralised.agent_networks(spec, cfg, student, activation=mish)
    aggregate = flows.AGGREGATES[cfg.aggregate]

    def fresh(key: Key[Array, ""]) -> ActorCritic:
        return flows.first_networks(nets, key)

    # line 2, for one agent
    def step(
        key: Key[Array, ""], state: ActorCritic, batch: AgentBatch, taught_by: Params
    ) -> Stepped:
        k_next, k_z = jax.random.split(key)
        rows = batch.action.shape[:1]

        # --- critics: lines 3 and 4 ---
        z_next = masked_noise(k_next, batch.mask, rows)
        out = nets.actor.apply(state.actor.params, z_next, batch.next_obs)
        next_action = in_box(out, batch.mask)
        state, critic_metrics = critic_step(
            cfg, nets, state, batch, next_action, aggregate=aggregate
        )

        # --- student: lines 5 and 6 ---
        z = masked_noise(k_z, batch.mask, rows)
        taught = flow_end(flow, taught_by, z, batch.obs, batch.mask)

        def loss(params):
            out = nets.actor.apply(params, z, batch.obs)
            fit = flows.distillation(out, taught, batch.mask)
            q = nets.q.apply(state.critic.params, batch.obs, in_box(out, batch.mask))
            value, q_mean = flows.value_term(cfg, q)
            return cfg.alpha * fit + value, {"distillation_loss": fit, "q_played": q_mean}

        # lines 6 and 7
        return flows.one_step_update(nets, cfg.polyak, state, loss, critic_metrics)

    # line 8
    def play(key, state, obs, mask):
        return in_box(nets.actor.apply(state.actor.params, masked_noise(key, mask), obs), mask)

    def teacher(past: Past, batch) -> Params:
        return flows.teacher_params(past, "own")

    return decentralised.independent_learners(
        spec, cfg, fresh, step, play, teacher, cfg.policy_batch
    )


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that MA-FQL cannot train on."""
    decentralised.check(spec, cfg, data, {**decentralised.CHOICES, **flows.CHOICES})
    check_batch(data, cfg.flow_batch, "--cfg.flow-batch")


health = partial(decentralised.actor_critic_health, weight="eta", activation=mish)


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """Two stages: each agent's flow -> students and critics."""
    final = policy(spec, cfg)
    compared = health(spec, cfg, final)
    last = Stage.from_config(cfg, "policy", final, cfg.policy_steps, None, "fql", compared)
    return flows.teacher_stage(spec, cfg, "own"), last


FQL = System(Config, check, as_is, pipeline)
