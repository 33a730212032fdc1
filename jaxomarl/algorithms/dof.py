"""DoF-Policy and Independent Diffusion: diffusion policies of a team, factorised or not, driven up a critic.

**Paper**. "DoF: A Diffusion Factorization Framework for Offline Multi-Agent Decision Making", Algorithms 1, 2 and 4,
its policy agent (appendix C.4); and its baseline "ID" (section 5.1, appendix A.2), that agent without factorisation.

**Pseudo-code**. For all agents at once, f and h as in diffusion/factorise.py, their team in policies/team.py:

    1   for each gradient step on a batch of transitions:                         stage "policy", `update`
    2       a' ~ pibar(o'): K ancestral steps with the noise f(eps_1, .., eps_n), then h, clipped
    3       each Q^k: step down mean (Q^k(s, a) - r - gamma (1 - d) min_k Qbar^k(s', a'))^2
    4       x = alpha_k a + sigma_k z, one k for all agents; a^0 ~ pi(o) as in line 2
    5       theta: step down mean |f(eps_1(x_1, k, o_1), ..) - z|^2 / D + mean |h(sg x0) - a|^2 / D
                - eta mean Q^1(s, a^0) / sg[ mean |Q^1(s, a^0)| ],        x0 the last step's
    6       targets of critics and policies follow with polyak
    7   act: agent i runs line 2 on row i alone; of several candidates, it plays the one with the largest min_k Qbar_i^k

        dof-p           f: `noise_mixer`, h: `data_mixer`, a joint critic
        ind-diffusion   f: eps(x_i, k, o_i) (pooled: not told whose), eps_i(x_i, k, o_i) (separate), or
                        eps(x_1..x_n, k, o_1..o_n) (joint); no h; critics of o_i, a_i and r_i, line 5 with their mean

**Differs**.

- The released code cuts the gradient of line 5's value, builds a chain of another schedule than its settings name, and
  trains weights that it does not sample with: it clones the behaviour, and its flag for f does nothing. Here the
  gradient is alive, and one function of f serves the loss and the chain.
- The divisor is |Q| and held constant; the printed one is signed and turns the objective over for negative returns.
- Algorithm 1 prints x^(k-1) for x^0; its eq. 4 weighs the forward noise: no chain from N(0, I) could return from that.
- No schedule is printed: with K = 10, linear betas leave alpha^2 = 0.90 at the chain's start and are refused.
- Steps have the posterior's variance, not beta_k, and hold each clean estimate in the box. h has no printed loss; see
  `fitting_loss`. For dec-atten line 5 is atten's, and the agents act with their own terms.
- `critic="own"` is the released code's. With f and h of concat it is `diffusion-ql`'s, whose value has another head in
  its divisor. Of 50 candidates the code plays one at random, which is as good as one draw.
- K, eta and rates are Table 8's, ID's too; gamma (0.99), batch and clip are the code's.
- ID is pooled: agents whose observations do not tell them apart draw from the mean of their marginals. Separate models
  are `dof-p` with concat; `joint` is no baseline of the paper: it is their measure.

**Checked**. tests/diffusion/test_factorise.py (f and h), tests/probes/test_dof.py (Q's gradient reaches networks and
weights; the divisor; eta = 0 clones and eta > 0 takes the better mode; total variations; pooled), tests/contract.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Environment, Past, Spec, Stage, System, refuse
from jaxomarl.config import config, static, traced
from jaxomarl.data.dataset import sample_transitions
from jaxomarl.diffusion.factorise import DATA, NOISE, check_execution
from jaxomarl.diffusion.losses import eps_loss
from jaxomarl.diffusion.parameterise import noised
from jaxomarl.diffusion.schedules import BY_LEVELS, check_by_levels
from jaxomarl.losses.candidates import pick
from jaxomarl.losses.td import continues
from jaxomarl.losses.weighting import normalised_value
from jaxomarl.networks.critics import twin
from jaxomarl.networks.inputs import flat, observed, stated
from jaxomarl.networks.mlp import Network, mish
from jaxomarl.optim import Params, clipped_adam, create
from jaxomarl.policies.diffusion import clean, several
from jaxomarl.policies.team import (
    Team,
    factorised,
    finished,
    independent,
    sample_team,
    times_and_noise,
)
from jaxomarl.stages import decentralised
from jaxomarl.stages.decentralised import (
    AgentBatch,
    Learner,
    Nets,
    agent_batches,
    critic_step,
    policy_step,
)

CHOICES = {"critic": ("joint", "own"), "schedule": tuple(BY_LEVELS), "acting": ("online", "target")}


@config
class Base(decentralised.Diffusion, decentralised.Config):
    """Settings of teams with diffusion policies; the defaults are DoF-Policy's."""

    reward: str = static(default="team")
    """Reward that is learned. team: the team's. own: each agent's, with own critics alone."""
    critic: str = static(default="joint")
    """Critic of the team. joint: Q(state, all actions). own: Q_i(o_i, a_i) for each agent."""
    gamma: float = traced(default=0.99, within="[0, 1]")
    eta: float = traced(default=0.5, within="[0, inf)")
    """Weight of the normalised value in the policy's loss; 0 clones the behaviour."""
    levels: int = static(default=10)
    """K: steps of the sampler, and noise levels that are trained."""
    schedule: str = static(default="vp")
    """Noise schedule. vp: Diffusion-QL's. cosine: squared cosine. linear: betas 1e-4 .. 0.02, for about 1000 levels."""
    candidates: int = static(default=1)
    """Actions that are sampled in each step; the one with the largest own value is played."""
    acting: str = static(default="online")
    """Networks that act in evaluations. online: the trained ones. target: their slow averages."""
    polyak: float = traced(default=0.005, within="(0, 1]")


@config
class Config(Base):
    """DoF-Policy's settings."""

    noise_mixer: str = static(default="wconcat")
    """f, which mixes the agents' noise. concat, wconcat, dec-atten: agents can act alone. atten, qmix: they cannot."""
    data_mixer: str = static(default="wconcat")
    """h, which mixes the agents' samples. concat (none), wconcat: agents can act alone. atten, qmix: they cannot."""
    networks: str = static(default="separate")
    """Noise networks. separate: one per agent. shared: one for all, conditioned on the agent's number."""
    execution: str = static(default="decentralised")
    """What mixers may need. decentralised: those that need other agents are refused. central: they are accepted."""


@config
class IndependentConfig(Base):
    """Independent Diffusion's settings."""

    model: str = static(default="separate")
    """Networks. pooled: one on all agents' rows, as in the paper. separate: one per agent. joint: one for all."""
    critic: str = static(default="own")


class Variant(NamedTuple):
    """One row of the table above."""

    name: str
    config: type[Base]
    team: Callable[..., Team]  # (spec, cfg) -> Team
    choices: dict[str, tuple[str, ...]]


def fitting_loss(
    team: Team,
    params: Params,
    action: Float[Array, "B N A"],
    obs: Float[Array, "B N O"],
    mask: Float[Array, "N A"],
    t: Float[Array, " B"],
    z: Float[Array, "B N A"],
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Line 5 without the value, and its terms: the second where there is an h.

    x0 is what the chain's last step makes of the row's own action, noised to the level of that step: h is applied to
    such. Whole samples belong to no row, and to regress on them would shrink h to the conditional mean.
    """
    schedule, columns = team.trained.schedule, mask.sum()
    eps = lambda x, t: team.trained.net.apply(params, x, t, obs)
    loss = eps_loss(eps, schedule, action, t, z, mask) / columns
    if team.mix is None:
        return loss, {"denoising_loss": loss}
    last = jnp.asarray(1.0 / team.trained.levels)
    x0 = clean(team.trained, params, obs, mask)(noised(schedule, action, last, z * mask), last)
    error = mask * team.mix(params, jax.lax.stop_gradient(x0), obs) - action
    mixed = jnp.mean(jnp.sum(error**2, axis=(-1, -2))) / columns
    return loss + mixed, {"denoising_loss": loss, "mixer_loss": mixed}


def critic_batches(
    spec: Spec, cfg: Base, past: Past, batch: Batch
) -> tuple[AgentBatch, AgentBatch]:
    """What each critic is told of a batch, and the axes over which to vmap them: one critic, or N."""
    own, axes = agent_batches(spec, cfg, past, batch)
    if cfg.critic == "own":
        return own, axes
    see = lambda state: stated(cfg)(past, state)[:, None]
    joint = AgentBatch(
        see(batch.state),
        flat(own.action)[:, None],
        batch.team_reward[:, None],
        see(batch.next_state),
        continues(batch, cfg.time_limit),
        own.mask.reshape(1, -1),
    )
    return joint, axes


def policy(spec: Spec, cfg: Base, team: Team) -> Algorithm:
    """The algorithm: N agents, and C = 1 joint critic or C = N own ones."""
    see, mask, joint = observed(spec, cfg), jnp.asarray(spec.act_mask), cfg.critic == "joint"
    count = 1 if joint else spec.agents
    cond, width = (spec.state_dim, mask.size) if joint else (spec.obs_width, spec.act_width)
    q = twin(cond, width, (cfg.critic_width,) * 3, activation=mish)
    actor = Network(team.init, team.trained.net.apply)
    nets = Nets(
        actor, q, clipped_adam(cfg.policy_lr, cfg.clip), clipped_adam(cfg.critic_lr, cfg.clip)
    )
    split = lambda action: action.reshape(len(action), count, -1)  # [B, N, A] -> [B, C, D]

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Learner:
        k_actor, k_q = jax.random.split(key)
        one = lambda k: create(nets.tx_q, q.init(k), target=True)
        actor = create(nets.tx_actor, team.init(k_actor), target=True)
        return Learner(actor, jax.vmap(one)(jax.random.split(k_q, count)))

    def batch(key: Key[Array, ""], state: Learner, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.policy_batch)

    def update(
        key: Key[Array, ""], state: Learner, past: Past, batch: Batch
    ) -> tuple[Learner, dict]:  # line 1
        k_after, k_noise, k_play = jax.random.split(key, 3)

        # --- critics ---
        told, axes = critic_batches(spec, cfg, past, batch)
        after = split(
            sample_team(team, k_after, state.actor.target, see(past, batch.next_obs), mask)
        )  # line 2

        def fit_critic(critic, told, after):  # line 3
            stepped, metrics = critic_step(cfg, nets, Learner(state.actor, critic), told, after)
            return stepped.critic, metrics

        critic, judged = jax.vmap(fit_critic, in_axes=(0, axes, 1))(state.critic, told, after)

        # --- policies ---
        obs, action = see(past, batch.obs), batch.action * mask
        t, z = times_and_noise(k_noise, cfg.levels, mask, len(action))

        def loss(params):
            fit, metrics = fitting_loss(team, params, action, obs, mask, t, z)
            played = split(sample_team(team, k_play, params, obs, mask))  # line 4
            value = jax.vmap(q.apply, in_axes=(0, 1, 1))(critic.params, told.obs, played)[
                :, 0
            ]  # [C, B]
            climb = jax.vmap(lambda v: normalised_value(v, cfg.eta, v))(value).mean()
            return fit + climb, {**metrics, "q_played": value.mean()}

        state, metrics = policy_step(cfg, nets, Learner(state.actor, critic), loss)  # lines 5 and 6
        return state, jax.tree.map(jnp.mean, judged) | metrics

    def act(key, state, past, memory, observation):  # line 7
        params = state.actor.target if cfg.acting == "target" else state.actor.params
        obs = see(past, observation.obs)
        wide, x = several(team.played, key, params, obs, mask, cfg.candidates)
        action = finished(team, params, x, wide, mask)
        if cfg.candidates == 1:
            return action[0], memory
        value = jax.vmap(q.apply, in_axes=(0, 1, 1), out_axes=2)(
            state.critic.target, wide, action
        ).min(axis=0)
        if team.centralised:  # a joint action is one draw: it is taken whole
            value = jnp.broadcast_to(value.mean(axis=1, keepdims=True), value.shape)
        return pick(action, value), memory

    return Algorithm(init, batch, update, act, centralised=team.centralised)


def check(spec: Spec, cfg: Base, data: Dataset | None, variant: Variant) -> None:
    """Raise JaxomarlError for settings, tasks or data that a team cannot learn on."""
    decentralised.check(spec, cfg, data, {**decentralised.CHOICES, **CHOICES, **variant.choices})
    check_by_levels(cfg.schedule, cfg.levels)
    if cfg.critic == "joint" and cfg.reward != "team":
        way = "A joint critic has one value: take --cfg.reward team, or --cfg.critic own."
        raise refuse("--cfg.reward", "team", cfg.reward, way)
    if cfg.critic == "joint" and cfg.candidates > 1:
        way = "No agent sees the joint critic's state or the others' candidates: take 1, or --cfg.critic own."
        raise refuse("--cfg.candidates", "1 with a joint critic", cfg.candidates, way)
    if isinstance(cfg, Config):
        check_execution(cfg.execution, cfg.noise_mixer, cfg.data_mixer)


def pipeline(spec: Spec, cfg: Base, env: Environment | None, variant: Variant) -> tuple[Stage, ...]:
    """One stage."""
    final = policy(spec, cfg, variant.team(spec, cfg))
    return (Stage("policy", final, cfg.policy_steps, cfg.chunk, cfg.every, owner=variant.name),)


def system(variant: Variant) -> System:
    """The registry row of a variant."""
    checked, stages = partial(check, variant=variant), partial(pipeline, variant=variant)
    return System(variant.config, checked, lambda spec, cfg, data: data, stages)


CENTRAL = {"networks": ("separate", "shared"), "execution": ("decentralised", "central")}
DOF_P = Variant("dof-p", Config, factorised, {"noise_mixer": NOISE, "data_mixer": DATA, **CENTRAL})
IND_DIFFUSION = Variant(
    "ind-diffusion", IndependentConfig, independent, {"model": ("pooled", "separate", "joint")}
)
