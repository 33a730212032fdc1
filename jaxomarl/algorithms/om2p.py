"""OM2P: each agent's one-step policy is a mean flow of its data, and climbs its own critics.

**Paper**. "OM2P: Offline Multi-Agent Mean-Flow Policy" (AAMAS 2026), its loss and released code, as
far as an account of them goes: no per-task number could be verified.

**Pseudo-code**. For every agent i, on its own observation, action and reward:

    1   for each gradient step on a batch of transitions:     stage "policy", `update`
    2       z' ~ N(0, I);  a' = clip (z' - u(z', 0, 1, o'))
    3       each Q^k: step down mean (Q^k(o, a) - r - gamma (1 - d) mean_k Qbar^k(o', a'))^2
    4       r <= t, z ~ N(0, I);  x = (1 - t) a + t z;  w = z - a
                                                              (policies/flows.py, `ordered_times`)
    5       y ~ N(0, I);  b = y - u(y, 0, 1, o): one call
    6       u: step down mean |u(x, r, t, o) - sg[ w - (t - r) du/dt ]|^2
                - eta mean Q(o, clip b) / sg[ mean |Q| ],           Q the mean of the twins
    7       targets of the critics follow with polyak; the policy has none
    8   act: z ~ N(0, I), play clip (z - u(z, 0, 1, o)): one call

**Differs**.

- The code plays the network's raw output at (0, 1), and fits the same output to the mean velocity.
  An action is z - u in mean flows, which is ours.
- The code's target has the wrong sign of (t - r) du/dt in its own order of times, and its default
  takes pairs that are not ordered. Ours is the identity of Geng et al., with r <= t.
- du/dt is an exact forward-mode product. The code's default is a difference over 1e-12, which is
  zero in float32.
- The paper's law of times is a family of exponentials. Ours is that of `mean-flow`.
- We leave out the imitation of a search's best actions, which is an option of the code.
- `eta` is the paper's w_Q. With 0 it is `mean-flow` next to critics that nobody follows. A tenth of
  line 6's rows are at (0, 1), where the policy acts. So eta = 1 weighs the value as alpha = 0.1
  does in `fql`, whose default is 3. The paper chooses among 0.01, 0.1, 1 and 10 for each task.

**Checked**. tests/diffusion/test_flows.py (the identity of line 6), tests/probes/test_fql.py (line
6 is the mean flow's loss and eta times the value, through one call; the weight of the value),
tests/contract.
"""

from functools import partial

import jax
from jaxtyping import Array, Key

from jaxomarl.base import Algorithm, Dataset, Spec, System, one_stage
from jaxomarl.config import config, traced
from jaxomarl.data.dataset import as_is
from jaxomarl.networks.mlp import mish
from jaxomarl.policies.flows import (
    agent_mean_velocity,
    in_box,
    jump_end,
    masked_noise,
    mean_flow_loss,
)
from jaxomarl.stages import decentralised
from jaxomarl.stages import flow as flows
from jaxomarl.stages.decentralised import ActorCritic, AgentBatch, Stepped, critic_step


@config
class Config(flows.Valued, decentralised.Wide):
    """OM2P's settings."""

    polyak: float = traced(default=0.005, within="(0, 1]")
    """Rate at which the critics' targets follow them."""


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """Build the learner: each agent's mean velocity and twin critics."""
    net = agent_mean_velocity(spec, cfg.policy_width)
    nets = decentralised.agent_networks(spec, cfg, net, activation=mish)
    aggregate = flows.AGGREGATES[cfg.aggregate]

    def fresh(key: Key[Array, ""]) -> ActorCritic:
        return flows.first_networks(nets, key)

    # line 1, for one agent
    def step(key: Key[Array, ""], state: ActorCritic, batch: AgentBatch) -> Stepped:
        k_next, k_fit, k_played = jax.random.split(key, 3)
        rows = batch.action.shape[:1]

        # --- critics: lines 2 and 3 ---
        z_next = masked_noise(k_next, batch.mask, rows)
        out = jump_end(net, state.actor.params, z_next, batch.next_obs, batch.mask)
        next_action = in_box(out, batch.mask)
        state, critic_metrics = critic_step(
            cfg, nets, state, batch, next_action, aggregate=aggregate
        )

        # --- policy: lines 5 and 6 ---
        y = masked_noise(k_played, batch.mask, rows)

        def loss(params):
            fit = mean_flow_loss(k_fit, net, params, batch.action, batch.obs, batch.mask)
            out = jump_end(net, params, y, batch.obs, batch.mask)
            q = nets.q.apply(state.critic.params, batch.obs, in_box(out, batch.mask))
            value, q_mean = flows.value_term(cfg, q)
            return fit + value, {"flow_loss": fit, "q_played": q_mean}

        # lines 6 and 7
        return flows.one_step_update(nets, cfg.polyak, state, loss, critic_metrics)

    # line 8
    def play(key, state, obs, mask):
        z = masked_noise(key, mask)
        return in_box(jump_end(net, state.actor.params, z, obs, mask), mask)

    return decentralised.independent_learners(spec, cfg, fresh, step, play, None, cfg.policy_batch)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that OM2P cannot train on."""
    decentralised.check(spec, cfg, data, {**decentralised.CHOICES, **flows.CHOICES})


health = partial(decentralised.actor_critic_health, weight="eta", activation=mish)
pipeline = one_stage("om2p", policy, health=health)
OM2P = System(Config, check, as_is, pipeline)
