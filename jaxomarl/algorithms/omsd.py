"""OMSD: offline multi-agent RL by sequential score decomposition.

**Paper**. "Offline Multi-agent Reinforcement Learning with Sequential Score Decomposition", 2025, Algorithm 1 (its
equation 6), after SRPO (Chen et al. 2024, "Score Regularized Policy Optimization through Diffusion Behavior").

**Pseudo-code**. Beside Algorithm 1's line numbers:

    2-5    train the joint critic Q_tot by IQL                               stage "critic" (stages/critic.py)
    6-9    for all agents i in parallel:                          stage "scores-conditional" (stages/scores.py)
               train the score model eps_i(x, t | o_i, a_<i)
    11     for each policy gradient step:                                    stage "policy", `update`
    12         for agent i = 1..n in order:                                  `move`, scanned over the order
    13             a_<i from the latest policies pi_j, j < i
    14             theta_i <- step down mean[ w(t) <e_i, a_i> - beta <g_i, a_i> ], where
                   e_i = eps_i(alpha_t a_i + sigma_t z, t | o_i, a_<i),  g_i = dQ_tot/da_i

**Differs**.

- The paper speaks of costs and rewards by turns; here there are rewards throughout.
- The paper calls the noise prediction a score. The score is -eps/sigma, so the noise prediction itself is descended.
- The paper subtracts the noise that was added (its eps, our z) from the prediction, a control variate; the authors'
  code does not. The default is the code's (`control_variate`).
- The paper writes Q_phi; g is the gradient of the mean of the target twins, as in the code.
- Scores are conditioned on o_i, the code's, or on the state, the paper's (`condition`).
- Weight and time range are the code's (w = sigma^2, t ~ U(0.02, 0.98)) unless `weighting="delta"`, the paper's. With
  the code's, the regulariser alone rests at the mean of two symmetric modes and on neither (tests/probes/test_cms.py).
  The presets `paper` and `paper-mujoco` pair the paper's condition, weight and control variate.
- The score network predicts the noise, as the paper's; `score_predict="edm"` preconditions it, because a loss in eps
  leaves the clean prediction unlearned at the large t where w = sigma^2 asks for it (docs/omsd.md).
- The prefix is the clean a_<i in training, as the paper's; `score_prefix` may noise or diffuse it.
- The prefix is fresh (Algorithm 1) or, with `sweep="jacobi"`, the start of the step's (the code's).
- Agent i is not told what its action does to the agents after it: the sum over j > i of d log mu_j / d a_i is dropped,
  so this is a sequence of best responses and no single objective's gradient; `joint-score` in brpo.py has all of it.

**Checked**. tests/probes/test_omsd_srpo.py (n = 1 is SRPO, step for step, against a step written apart),
tests/probes/test_gaussian_oracle.py (fixed points), tests/probes/test_bandit_exact.py (end points with exact scores),
tests/reference/test_extraction.py (which parameters each loss moves; sign), tests/probes/test_scores.py (prefixes),
tests/probes/test_exact_scores.py (exact scores in place of learned ones).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Environment, Past, Spec, Stage, System, refuse
from jaxomarl.config import config, static, traced
from jaxomarl.networks.inputs import observed
from jaxomarl.optim import create, descend
from jaxomarl.stages import critic, score_regularised, scores
from jaxomarl.stages.clone import Policies, policy_optimiser
from jaxomarl.stages.score_regularised import (
    diffused,
    q_gradient,
    surrogate,
    times_and_noise,
    weight,
)


@config
class Config(score_regularised.Config):
    """OMSD's settings: the family's, and how agents take turns."""

    order: str = static(default="")
    """Order in which agents move and which defines their prefixes, such as 2-1-0; empty: 0-1-..-n."""
    sweep: str = static(default="gauss-seidel")
    """Turns of the agents. gauss-seidel: each reacts to those just updated. jacobi: all to the first actions."""
    score_prefix: str = static(default="clean")
    """Preceding actions in score models. clean: the paper. noised. diffused: with the agent's own diffusion time."""
    prefix_noise: float = traced(default=0.5, within="(0, inf)")
    """Largest standard deviation of the noise on a noised prefix in training."""
    prefix_level: float = traced(default=0.2, within="[0, inf)")
    """Standard deviation that a noised model takes the policies' preceding actions to have."""


def policy(
    spec: Spec, cfg: Config, eps: Callable[..., Array], q: Callable[..., Array]
) -> Algorithm:
    """Stage 3: behaviour model `eps(past, i, x_i, t, obs, state, action)` and critic `q(past, obs, state, action)`."""
    actors = score_regularised.actors(spec, cfg)
    tx = policy_optimiser(cfg)
    mask = jnp.asarray(spec.act_mask)
    order = jnp.asarray(scores.agent_order(cfg.order, spec.agents))

    # line 11
    def update(
        key: Key[Array, ""], state: Policies, past: Past, batch: Batch
    ) -> tuple[Policies, dict]:
        t, z = times_and_noise(key, cfg, batch.action.shape, mask)
        obs = observed(spec, cfg)(past, batch.obs)
        first = actors.every(state.actor.params, obs)

        def move(carry, i):  # line 12
            net, a = carry
            heard = a if cfg.sweep == "gauss-seidel" else first  # line 13
            x = diffused(cfg, heard[:, i], t[:, i], z[:, i])
            prefix = scores.policy_prefix(cfg, heard, t[:, i], z)
            e = (
                eps(past, i, x, t[:, i], batch.obs, batch.state, prefix)
                - cfg.control_variate * z[:, i]
            )
            g = q_gradient(cfg, q, past, batch, heard, mask)[:, i]
            w = weight(cfg, t[:, i])
            mine = jax.tree.map(lambda leaf: leaf[i], net)

            def loss(params):
                return surrogate(cfg, w, e, g, actors.one(params, i, obs[:, i])).mean()

            value, grads = jax.value_and_grad(loss)(mine.params)
            mine = descend(tx, mine, grads)  # line 14
            net = jax.tree.map(lambda leaf, new: leaf.at[i].set(new), net, mine)
            after = a.at[:, i].set(actors.one(mine.params, i, obs[:, i]))
            return (net, after), score_regularised.report(a[:, i], e, g, w, value)

        (net, _), metrics = jax.lax.scan(move, (state.actor, first), order)
        return Policies(net), jax.tree.map(jnp.mean, metrics)

    fresh = jax.vmap(lambda params: create(tx, params))
    return score_regularised.learner(spec, cfg, actors, fresh, update)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings that OMSD cannot take."""
    score_regularised.check(spec, cfg, data)
    score_regularised.check_order(spec, cfg.order)
    if cfg.sweep not in ("gauss-seidel", "jacobi"):
        raise refuse("--cfg.sweep", "gauss-seidel or jacobi", cfg.sweep, "Take one of these.")
    check_prefix(cfg)


def check_prefix(cfg: Config) -> None:
    """Raise JaxomarlError for a prefix that the score model cannot take."""
    taken = {"diffusion": scores.PREFIXES, "mixture": ("clean", "noised")}.get(
        cfg.score_model, ("clean",)
    )
    if cfg.score_prefix not in taken:
        expected = f"{' or '.join(taken)} with score_model = {cfg.score_model}"
        raise refuse(
            "--cfg.score-prefix",
            expected,
            cfg.score_prefix,
            "Take one of these, or another score model.",
        )
    if not 0.0 <= cfg.prefix_level <= cfg.prefix_noise:
        way = "Policies' actions are read at a level that training met."
        raise refuse(
            "--cfg.prefix-level", f"0 to prefix_noise = {cfg.prefix_noise:g}", cfg.prefix_level, way
        )


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """Critic -> scores -> policy."""
    joint, model = critic.iql(spec, cfg), scores.scores(spec, cfg, "conditional")
    final = policy(spec, cfg, model.agent, joint.q)
    fields = (
        *critic.FIELDS,
        *scores.fields("conditional"),
        *score_regularised.FIELDS,
        "sweep",
        "prefix_level",
    )
    return (
        Stage("critic", joint.algorithm, cfg.critic_steps, cfg.chunk, cfg.every, critic.FIELDS),
        Stage(
            "scores-conditional",
            model.algorithm,
            scores.steps(cfg),
            cfg.chunk,
            cfg.every,
            scores.fields("conditional"),
        ),
        Stage("policy", final, cfg.policy_steps, cfg.chunk, cfg.every, fields, owner="omsd"),
    )


OMSD = System(Config, check, lambda spec, cfg, data: data, pipeline)
