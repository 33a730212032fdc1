"""DoF-Trajectory: one factorised diffusion of plans, of which each agent samples and plays its own.

**Paper**. "DoF: A Diffusion Factorization Framework for Offline Multi-Agent Decision Making",
Algorithms 1 and 3, its trajectory agent (appendix C.3).

**Pseudo-code**. Plans x_i are agent i's observations over C rows of history, the present and H rows
ahead:

    1   each row: y_i = discounted return of agent i from that row on, as a share  (data/returns.py)
    2   for each gradient step on a batch of windows: stage "planner" (stages/planner.py, `update`)
    3       x = alpha_k x^0 + sigma_k z ahead, and the known rows as they are; y_i is dropped with
            probability 0.25                          (stages/planner.py, `plan_randomness`)
    4       theta: step down 1/2 mean |f(eps_1(x_1, k, y_1), ..) - z|^2 + mean |h(sg x0) - x^0|^2,
            x0 from the chain's last step; f and h of `model`
                                                      (stages/planner.py, `planning_loss`)
    5       phi: step down 1/2 mean |u_i - D(o_i, o_i')|^2; discrete: cross-entropy over the
            available actions                         (stages/planner.py, `update`)
    6   act: agent i samples x_i with eps = eps_0 + w (eps_y - eps_0) and h, its known rows written
        over it before every step; then it plays D(o_i, x_i's next row) (policies/plans.py, `actor`)

**Differs**.

- In the released code, the pass without the condition keeps the condition three times in four, so
  guidance has no effect. Here the embedding of the condition is zero throughout that pass.
- In the released code, all agents share one network whatever the settings say. Here `networks`
  chooses, and a shared network is conditioned on the agent.
- The released code divides the weights of wconcat by their sum. Here they are k_i, 1 at the start,
  and the chain has the same f as the loss.
- Algorithm 3 samples a level for each agent. f mixes agents, so here all agents share one level.
- Algorithm 3 drops y after predicting; here it is dropped before.
- The low temperature scales the start of the chain alone, as in the released code.
- The released "consistency" sampler runs on a network that was not trained for it. Here one is
  distilled from the planner (stages/plan_student.py).
- Weights are averaged at every update (0.005), not at every tenth from the 2000th on.
- Rows past the end of an episode repeat the last one and are not in the loss.
- The paper prints no loss for h; ours is in stages/planner.py.
- The target return is one number for all steps, as in the released code, and few rows reach it late
  in an episode. `target_kind` subtracts the received rewards, or takes a quantile of the data's
  returns (data/return_targets.py).
- Two variants of the paper: `attention` is DoF+MADiff, in whose networks agents attend to each
  other. `code_width` is DoF+VAE, a diffusion of codes (stage "codes", `coder`), on which D acts.

**Checked**. tests/diffusion/test_factorise.py (f and h), tests/probes/test_planners.py (known rows
stay; the pass without a condition; the queue of history; what is refused; a plan for a high
return), tests/probes/test_planner_targets.py (target returns, and which rewards an agent sees),
tests/contract.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Environment, Past, Spec, Stage, System, refuse
from jaxomarl.config import config, static, traced
from jaxomarl.data.dataset import sample_transitions
from jaxomarl.data.ranges import Quantiles, fit_quantiles, ranged
from jaxomarl.diffusion.factorise import DATA, NOISE, check_execution, composed, factorisation
from jaxomarl.networks.agents import PLANS, separate, shared, shared_plans
from jaxomarl.networks.inverse_dynamics import inverse
from jaxomarl.networks.mlp import Network, mish, mlp
from jaxomarl.optim import Net, Params, create, descend
from jaxomarl.policies.plans import Codes, Planner, Predict
from jaxomarl.stages import planner
from jaxomarl.stages.plan_student import plan_stages
from jaxomarl.stages.planner import coder_health, unet

CHOICES = {
    "noise_mixer": NOISE,
    "data_mixer": DATA,
    "networks": ("shared", "separate"),
    "execution": ("decentralised", "central"),
}


@config
class Config(planner.Config):
    """DoF-Trajectory's settings."""

    noise_mixer: str = static(default="wconcat")
    """f, which mixes the agents' noise. Agents can act alone unless it is atten or qmix."""
    data_mixer: str = static(default="wconcat")
    """h, which mixes the agents' samples; concat leaves them unmixed. Agents can act alone unless
    it is atten or qmix."""
    networks: str = static(default="shared")
    """Networks. shared: one that is given the agent's number. separate: one per agent."""
    attention: bool = static(default=False)
    """Whether agents attend to one another inside a shared network (DoF+MADiff); then none can plan
    alone."""
    code_width: int = static(default=0, within="[0, inf)", scaled="width")
    """Numbers in the code of an observation, of which plans then consist (DoF+VAE); 0: plans of
    observations."""
    code_kl: float = traced(default=1e-3, within="[0, inf)")
    """Weight of the divergence between the autoencoder's codes and N(0, 1)."""
    code_lr: float = traced(default=1e-3, within="(0, inf)")
    """Learning rate of the autoencoder."""
    code_steps: int = static(default=20_000, scaled="steps")
    """Gradient steps of the autoencoder."""
    execution: str = static(default="decentralised")
    """How agents plan. decentralised: refuse what needs other agents. central: accept it."""


# --- the planner ---


def plan_network(spec: Spec, cfg: Config, width: int) -> Network:
    """Build the noise prediction of all agents' plans, before f mixes them."""
    n = spec.agents
    if cfg.networks == "separate":
        return separate(unet(cfg, width), n, PLANS, out=-3)

    def network(width):
        return unet(cfg, width, n if cfg.attention else 0)

    return shared_plans(network, width, n)


def dof_planner(spec: Spec, cfg: Config) -> Planner:
    """Build the factorised planner."""
    plan_codes = codes(spec, cfg)
    rows = cfg.history + 1 + cfg.horizon
    width = plan_codes.width if plan_codes else spec.obs_width
    columns = rows * width
    if plan_codes:
        mask = jnp.ones((spec.agents, columns))
    else:
        mask = jnp.tile(jnp.asarray(spec.obs_mask), (1, rows))

    init_parts, predict = plan_network(spec, cfg, width)
    f = factorisation(cfg.noise_mixer, spec.agents, columns, columns + 3)
    h = factorisation(cfg.data_mixer, spec.agents, columns, 2)

    def init(key):
        k_parts, k_noise, k_data = jax.random.split(key, 3)
        return {"parts": init_parts(k_parts), "noise": f.init(k_noise), "data": h.init(k_data)}

    # f and h work on flat plans [..., N, rows * width], the networks on plans [..., N, rows, width]
    def flat(x):
        return x.reshape(*x.shape[:-2], columns)

    def unflat(x):
        return x.reshape(*x.shape[:-1], rows, width)

    def parts(params, x, t, condition):
        return flat(predict(params, unflat(x), t, condition))

    # f of line 4
    def noise(executed: bool) -> Predict:
        team = composed(parts, f, mask, executed)
        return lambda params, x, t, condition: unflat(team(params, flat(x), t, condition))

    # h of line 4
    def mixed(params: Params, x: Array, t: Array, condition: Array) -> Array:
        return unflat(h.train(params["data"], flat(x), condition))

    # D of line 5
    inverse_dynamics = inverse(spec, cfg.networks, cfg.inverse_width, width)
    decentralised = f.decentralised and h.decentralised and not cfg.attention
    return Planner(
        init,
        trained=noise(executed=False),
        executed=noise(executed=True),
        mix=None if cfg.data_mixer == "concat" else mixed,
        inverse=inverse_dynamics,
        centralised=not decentralised,
        codes=plan_codes,
    )


# --- codes of observations, of which plans may consist (DoF+VAE) ---


class Coder(NamedTuple):
    """The autoencoder's parameters {"to", "from"} and the units of observations."""

    net: Net
    knots: Quantiles


def codes(spec: Spec, cfg: Config) -> Codes | None:
    """What a planner of codes needs to know; None where plans consist of observations."""
    if not cfg.code_width:
        return None
    encoder, _ = coder_networks(spec, cfg)

    def encode(past: Past, rows: Array) -> Array:
        mu_and_log_s = encoder.apply(past["codes"].net.params["to"], rows)
        return jnp.tanh(mu_and_log_s[..., : cfg.code_width])

    return Codes(cfg.code_width, encode)


def coder_networks(spec: Spec, cfg: Config) -> tuple[Network, Network]:
    """Build E: rows [..., N, O] -> [mu, log s] [..., N, 2 L], and D: codes -> rows."""
    hidden = (cfg.inverse_width, cfg.inverse_width)

    def perceptron(outputs: int) -> Callable[[int], Network]:
        return lambda inputs: mlp(inputs, hidden, outputs, mish)

    encoder = shared(perceptron(2 * cfg.code_width), spec.obs_width, spec.agents)
    decoder = shared(perceptron(spec.obs_width), cfg.code_width, spec.agents)
    return encoder, decoder


def coder(spec: Spec, cfg: Config) -> Algorithm:
    """Build a variational autoencoder of single rows o, one for all agents.

    mu, log s = E(o),   c = tanh(mu + s z),   L = mean (D(c) - o)^2 + kl mean 1/2 (mu^2 + s^2 - 1
    - 2 log s)

    An agent's code is tanh(mu), in the box to which plans are clipped. It is a function of the
    agent's own observation, so agents that could plan alone still can. Source: Kingma and Welling
    2014; the tanh is ours, for the samplers' box.
    """
    optimiser = optax.adam(cfg.code_lr)
    to_units = ranged(cfg.normaliser, spec)
    obs_mask = jnp.asarray(spec.obs_mask)
    encoder, decoder = coder_networks(spec, cfg)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Coder:
        k_to, k_from = jax.random.split(key)
        params = {"to": encoder.init(k_to), "from": decoder.init(k_from)}
        return Coder(create(optimiser, params), fit_quantiles(cfg.normaliser, spec, data))

    def batch(key: Key[Array, ""], state: Coder, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.policy_batch)

    def update(key: Key[Array, ""], state: Coder, past: Past, batch: Batch) -> tuple[Coder, dict]:
        rows = to_units(state.knots, batch.obs)

        def loss(params: Params) -> tuple[Float[Array, ""], dict]:
            mu, log_s = jnp.split(encoder.apply(params["to"], rows), 2, axis=-1)
            code = jnp.tanh(mu + jnp.exp(log_s) * jax.random.normal(key, mu.shape))
            error = obs_mask * (decoder.apply(params["from"], code) - rows) ** 2
            code_error = jnp.mean(jnp.sum(error, axis=(1, 2)) / obs_mask.sum())
            kl = 0.5 * jnp.mean(mu**2 + jnp.exp(2 * log_s) - 1.0 - 2.0 * log_s)
            return code_error + cfg.code_kl * kl, {"code_error": code_error, "code_kl": kl}

        grads, metrics = jax.grad(loss, has_aux=True)(state.net.params)
        return state._replace(net=descend(optimiser, state.net, grads)), metrics

    return Algorithm(init, batch, update)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings or data that DoF-Trajectory cannot plan with."""
    planner.check(spec, cfg, data, CHOICES)
    if cfg.attention and cfg.networks != "shared":
        way = "Agents attend to one another within one network: take --cfg.networks shared."
        raise refuse("--cfg.networks", "shared with --cfg.attention", cfg.networks, way)
    if cfg.attention and cfg.execution != "central":
        expected = "no attention over agents in a decentralised planner"
        way = "It needs the other agents' plans at every step: take --cfg.execution central."
        raise refuse("--cfg.attention", expected, cfg.attention, way)
    check_execution(cfg.execution, cfg.noise_mixer, cfg.data_mixer)


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """The planner; before it an autoencoder and after it a consistency model, where asked for."""
    plans = plan_stages("dof-t", spec, cfg, dof_planner(spec, cfg))
    if not cfg.code_width:
        return plans
    learner = coder(spec, cfg)
    health = coder_health(spec, cfg, *coder_networks(spec, cfg))
    code_stage = Stage.from_config(cfg, "codes", learner, cfg.code_steps, None, "dof-t", health)
    return (code_stage, *plans)


DOF_T = System(Config, check, planner.prepare, pipeline)
