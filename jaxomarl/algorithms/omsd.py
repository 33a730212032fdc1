"""OMSD: offline multi-agent RL by sequential score decomposition.

**Paper**. "Offline Multi-agent Reinforcement Learning with Sequential Score Decomposition", 2025,
Algorithm 1 (its equation 6), after SRPO (Chen et al. 2024, "Score Regularized Policy Optimization
through Diffusion Behavior").

**Pseudo-code**. The numbers are those of Algorithm 1:

    2-5    train the joint critic Q_tot by IQL         stage "critic" (stages/critic.py)
    6-9    for all agents i in parallel:               stage "scores-conditional" (stages/scores.py)
               train the score model eps_i(x, t | o_i, a_<i)
    11     for each policy gradient step:              stage "policy", `update`
    12         for agent i = 1..n in order:            `move`, scanned over the order
    13             a_<i from the latest policies pi_j, j < i
    14             theta_i <- step down mean[ w(t) <e_i, a_i> - beta <g_i, a_i> ], where
                   e_i = eps_i(alpha_t a_i + sigma_t z, t | o_i, a_<i),  g_i = dQ_tot/da_i

**Differs**.

- The paper speaks of costs in some places and of rewards in others. Here everything is a reward.
- The paper calls the noise prediction a score. The score is -eps/sigma, so we descend along the
  noise prediction.
- The paper subtracts the added noise (its eps, our z) from the prediction, as a control variate.
  The authors' code does not, and neither does our default (`control_variate`).
- The paper writes Q_phi. Here g is the gradient of the mean of the two target critics, as in the
  authors' code.
- The paper conditions scores on the state, the authors' code on o_i. We have both (`condition`);
  the default is the code's.
- The paper puts all weight on t = 0.02 (`weighting="delta"`). The default is the code's:
  w = sigma^2 and t ~ U(0.02, 0.98). With it, the regulariser alone rests at the mean of two
  symmetric modes, and on neither of them (tests/probes/test_cms.py).
- The presets `paper` and `paper-mujoco` combine the paper's condition, weight and control variate.
- The score network predicts the noise, as in the paper. A loss in eps teaches it little about the
  clean action at large t, where w = sigma^2 needs it most. `score_predict="edm"` preconditions the
  network against that (docs/omsd.md).
- The score network is trained on clean actions a_<i, as in the paper. `score_prefix` adds noise to
  them, or diffuses them.
- Algorithm 1 conditions agent i on the actions just updated. The authors' code conditions all
  agents on the actions at the start of the step; that is `sweep="jacobi"`.
- Agent i ignores what its action does to the agents after it: the sum over j > i of
  d log mu_j / d a_i is dropped. The update is therefore a sequence of best responses, and not the
  gradient of one objective. `joint-score` (brpo.py) has the whole gradient.

- Discrete actions are ours. The paper names them as future work. Scores do not exist there, so
  lines 6-9 train clones mu_i(a_i | c_i, a_<i) (stages/sequential_clone.py), and line 14 descends
  their Kullback-Leibler divergence in closed form (stages/kl_regularised.py). The turns, the critic
  and what is dropped are the same. Ours too: the mixture with uniform actions (`floor`), which has
  the part of the diffusion's smoothing, and the start from a clone (`warm`).

**Checked**. tests/probes/test_omsd_srpo.py (for n = 1, OMSD is SRPO step for step),
tests/probes/test_gaussian_oracle.py (fixed points), tests/probes/test_bandit_exact.py (end points
with exact scores), tests/reference/test_extraction.py (which parameters each loss moves; signs),
tests/probes/test_scores.py (prefixes), tests/probes/test_exact_scores.py (exact scores in place of
learned ones), tests/probes/test_omsd_discrete.py (one agent, thresholds of agreement, XOR).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Environment, Past, Spec, Stage, System, refuse
from jaxomarl.config import config, is_zero, static, traced
from jaxomarl.data.dataset import as_is
from jaxomarl.networks.inputs import observation_normaliser
from jaxomarl.optim import create, descend
from jaxomarl.stages import critic, kl_regularised, score_regularised, scores
from jaxomarl.stages.clone import Policies, policy_optimiser
from jaxomarl.stages.score_regularised import (
    diffused,
    q_gradient,
    score_times_and_noise,
    surrogate,
    weight,
)

SWEEPS = ("gauss-seidel", "jacobi")
PREFIXES_OF_MODEL = {"diffusion": scores.PREFIXES, "mixture": ("clean", "noised")}
"""Prefixes that a score model can be conditioned on; other models take clean ones alone."""


@config
class Config(score_regularised.Config):
    """OMSD's settings: those of all score-regularised policies, and how agents take turns."""

    order: str = static(default="")
    """Order in which agents move, which also defines their prefixes. Example: 2-1-0.
    Empty: 0-1-..-n."""
    sweep: str = static(default="gauss-seidel")
    """Turns of the agents. gauss-seidel: each agent reacts to the actions just updated.
    jacobi: all agents react to the actions before the step."""
    score_prefix: str = static(default="clean")
    """Preceding actions in score models. clean: as in the paper. noised: with noise of known size.
    diffused: at the agent's own diffusion time."""
    prefix_noise: float = traced(default=0.5, within="(0, inf)")
    """Largest standard deviation of the noise on a noised prefix in training."""
    prefix_level: float = traced(default=0.2, within="[0, inf)")
    """Standard deviation that a noised model assumes for the policies' preceding actions."""


def policy(spec: Spec, cfg: Config, eps: Callable, q: Callable) -> Algorithm:
    """Build the policies' stage from a trained behaviour model and a trained critic.

    `eps(past, i, x_i, t, obs, state, prefix)` is agent i's noise prediction, and
    `q(past, obs, state, action)` is the value of a joint action.
    """
    actors = score_regularised.actors(spec, cfg)
    optimiser = policy_optimiser(cfg)
    action_mask = jnp.asarray(spec.act_mask)
    normalise_obs = observation_normaliser(spec, cfg)
    order = jnp.asarray(scores.agent_order(cfg.order, spec.agents))

    # line 11
    def update(
        key: Key[Array, ""], state: Policies, past: Past, batch: Batch
    ) -> tuple[Policies, dict]:
        t, z = score_times_and_noise(key, cfg, batch.action.shape, action_mask)
        obs = normalise_obs(past, batch.obs)
        actions_before = actors.every(state.actor.params, obs)

        # line 12
        def move(carry, i):
            actor, actions_now = carry

            # --- the joint action that agent i reacts to: line 13 ---
            a = actions_now if cfg.sweep == "gauss-seidel" else actions_before

            # --- the score of the behaviour ---
            x = diffused(cfg, a[:, i], t[:, i], z[:, i])
            prefix = scores.policy_prefix(cfg, a, t[:, i], z)
            noise = eps(past, i, x, t[:, i], batch.obs, batch.state, prefix)
            e = noise - cfg.control_variate * z[:, i]

            # --- the gradient of the critic, the weight of the score ---
            g = q_gradient(cfg, q, past, batch, a, action_mask)[:, i]
            w = weight(cfg, t[:, i])

            # --- one step of agent i's policy: line 14 ---
            own = jax.tree.map(lambda leaf: leaf[i], actor)

            def loss(params):
                own_action = actors.one(params, i, obs[:, i])
                return surrogate(cfg, w, e, g, own_action).mean()

            value, grads = jax.value_and_grad(loss)(own.params)
            own = descend(optimiser, own, grads)

            # --- the next agent sees the new action ---
            actor = jax.tree.map(lambda leaf, new: leaf.at[i].set(new), actor, own)
            new_action = actors.one(own.params, i, obs[:, i])
            actions_after = actions_now.at[:, i].set(new_action)
            metrics = score_regularised.score_regularised_metrics(actions_now[:, i], e, g, w, value)
            return (actor, actions_after), metrics

        (actor, _), metrics = jax.lax.scan(move, (state.actor, actions_before), order)
        return Policies(actor), jax.tree.map(jnp.mean, metrics)

    first_state = jax.vmap(lambda params: create(optimiser, params))
    return score_regularised.score_regularised_learner(spec, cfg, actors, first_state, update)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings that OMSD cannot train with."""
    family = kl_regularised if spec.discrete else score_regularised
    family.check(spec, cfg, data)
    score_regularised.check_order(spec, cfg.order)
    if cfg.sweep not in SWEEPS:
        raise refuse("--cfg.sweep", " or ".join(SWEEPS), cfg.sweep, "Take one of these.")
    check_prefix(cfg)


def check_prefix(cfg: Config) -> None:
    """Raise JaxomarlError for a prefix that the score model cannot be conditioned on."""
    allowed = PREFIXES_OF_MODEL.get(cfg.score_model, ("clean",))
    if cfg.score_prefix not in allowed:
        expected = f"{' or '.join(allowed)} with score_model = {cfg.score_model}"
        way = "Take one of these, or another score model."
        raise refuse("--cfg.score-prefix", expected, cfg.score_prefix, way)
    if not 0.0 <= cfg.prefix_level <= cfg.prefix_noise:
        expected = f"0 to prefix_noise = {cfg.prefix_noise:g}"
        way = "Policies' actions are read at a level that training met."
        raise refuse("--cfg.prefix-level", expected, cfg.prefix_level, way)


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """Three stages: critic -> scores -> policy; discrete actions have clones in place of scores."""
    if spec.discrete:
        return kl_regularised.pipeline(
            spec, cfg, "conditional", "omsd", order=cfg.order, sweep=cfg.sweep
        )

    # lines 2-5
    joint_critic = critic.iql(spec, cfg)
    critic_stage = critic.critic_stage(cfg, joint_critic, unused=is_zero(cfg.beta))

    # lines 6-9
    score_model = scores.behaviour_model(spec, cfg, "conditional")
    score_fields = scores.score_fields("conditional")
    _, last_time = score_regularised.time_range(cfg)
    score_stage = scores.score_stage(spec, cfg, score_model, "conditional", last_time)

    # lines 11-14
    own_fields = (*score_regularised.FIELDS, "sweep", "prefix_level")
    final = policy(spec, cfg, score_model.agent, joint_critic.q)
    policy_stage = critic.policy_stage(spec, cfg, final, (*score_fields, *own_fields), "omsd")
    return critic_stage, score_stage, policy_stage


OMSD = System(Config, check, as_is, pipeline)
