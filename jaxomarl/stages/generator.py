"""A team's diffusion model of joint samples: one noise prediction for all agents, sampled in one chain.

A `Team` is made of the agents' networks by the two systems that use it (algorithms/dof.py, independent_diffusion.py);
stages/diffusion_team.py drives it up a critic. `fit` and `draw` are for densities without a task: DoF's games, and
measures of what a factorised model can hold. With D real columns and t from {1/K .. 1}, one time for all agents:

    L_fit = mean |eps(alpha_t a + sigma_t z, t, o) - z|^2 / D + mean |h(sg x0) - a|^2 / D

where x0 is what the chain's last step would make of the row's own action, noised to the level of that step: it is to
such that h is applied. Whole samples of the chain belong to no row, and a regression on those would shrink h to the
conditional mean (on two symmetric modes, to k = 0). A perfect denoiser keeps k = 1.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from jaxomarl.base import refuse
from jaxomarl.diffusion.losses import eps_loss
from jaxomarl.diffusion.parameterise import noised
from jaxomarl.networks.agents import identified
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import Params, annealed, create, descend
from jaxomarl.stages.diffusion_policy import Diffuser, clean, sample
from jaxomarl.stages.inputs import flat


class Team(NamedTuple):
    """All agents' diffusion policies as one; x [..., N, A], obs [..., N, O]. Its params are `init`'s."""

    init: Callable[[Key[Array, ""]], Params]
    trained: Diffuser  # the noise that is fitted, and sampled in losses
    played: Diffuser  # the noise as the agents act
    mix: Callable[[Params, Array, Array], Array] | None  # h: (params, x, obs) -> action; None leaves x as it is
    centralised: bool  # acting takes other agents' observations


# --- networks for all agents: (params, x [..., N, A], t, obs [..., N, O]) -> noise [..., N, A] ---


def separate(net: Network, agents: int) -> Network:
    """Each agent's own network, on its own row."""
    each = jax.vmap(net.apply, in_axes=(0, -2, None, -2), out_axes=-2)
    return Network(lambda key: jax.vmap(net.init)(jax.random.split(key, agents)), each)


def shared(make: Callable[[int], Network], width: int, agents: int) -> Network:
    """One network for every row, told whose it is: `make(width)` is told of observations that wide."""
    net = pooled(make(width + agents))
    return Network(net.init, lambda params, x, t, obs: net.apply(params, x, t, identified(obs, agents)))


def pooled(net: Network) -> Network:
    """One network for every row, which is not told whose it is."""
    return Network(net.init, lambda params, x, t, obs: net.apply(params, x, t[..., None] if t.ndim else t, obs))


def joint(net: Network) -> Network:
    """One network of all rows side by side."""
    return Network(net.init, lambda params, x, t, obs: net.apply(params, flat(x), t, flat(obs)).reshape(x.shape))


# --- one draw, one loss ---


def drawn(
    team: Team, key: Key[Array, ""], params: Params, obs: Float[Array, "*B N O"], mask: Float[Array, "N A"]
) -> Float[Array, "*B N A"]:
    """Joint actions in the box by the noise as it is trained; differentiable through every step."""
    return finished(team, params, sample(team.trained, key, params, obs, mask), obs, mask)


def finished(
    team: Team, params: Params, x: Float[Array, "*B N A"], obs: Float[Array, "*B N O"], mask: Float[Array, "N A"]
) -> Float[Array, "*B N A"]:
    """The actions h(x), held in the box."""
    return x if team.mix is None else mask * jnp.clip(team.mix(params, x, obs), -1.0, 1.0)


def fitting_loss(
    team: Team,
    params: Params,
    action: Float[Array, "B N A"],
    obs: Float[Array, "B N O"],
    mask: Float[Array, "N A"],
    t: Float[Array, " B"],
    z: Float[Array, "B N A"],
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """L_fit and its terms; the second is there where h is something."""
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


def noise(
    key: Key[Array, ""], levels: int, mask: Float[Array, "N A"], batch: int
) -> tuple[Float[Array, " B"], Float[Array, "B N A"]]:
    """A time from {1/K .. 1} for each row, one for all agents, and masked noise."""
    k_t, k_z = jax.random.split(key)
    t = jax.random.randint(k_t, (batch,), 1, levels + 1) / levels
    return t, mask * jax.random.normal(k_z, (batch, *mask.shape))


# --- a density by itself ---


def fit(
    key: Key[Array, ""],
    team: Team,
    data: Float[Array, "M N D"],
    obs: Float[Array, "M N O"],
    steps: int,
    batch: int = 256,
    lr: float | Float[Array, ""] = 1e-3,
) -> tuple[Params, Float[Array, " steps"]]:
    """The team's parameters after `steps` of Adam on drawn rows of `data` in [-1, 1], and the loss of every step.

    The rate falls to zero by a cosine. Pure: jit it and vmap it over keys. Raises unless steps and batch are positive.
    """
    for field, value in (("steps", steps), ("batch", batch)):
        if value < 1:
            raise refuse(f"fit.{field}", "a positive whole number", value, "The defaults fit a game in seconds.")
    tx, mask, levels = optax.adam(annealed(lr, steps)), jnp.ones(data.shape[1:]), team.trained.levels
    k_init, k_steps = jax.random.split(key)

    def step(net, key):
        k_rows, k_noise = jax.random.split(key)
        rows = jax.random.randint(k_rows, (batch,), 0, len(data))
        t, z = noise(k_noise, levels, mask, batch)
        loss = lambda params: fitting_loss(team, params, data[rows], obs[rows], mask, t, z)[0]
        value, grads = jax.value_and_grad(loss)(net.params)
        return descend(tx, net, grads), value

    net, losses = jax.lax.scan(step, create(tx, team.init(k_init)), jax.random.split(k_steps, steps))
    return net.params, losses


def draw(
    key: Key[Array, ""], team: Team, params: Params, obs: Float[Array, "M N O"], columns: int
) -> Float[Array, "M N D"]:
    """A joint sample of `columns` each for every row of `obs`, as the agents act: dec-atten's by own terms."""
    mask = jnp.ones((obs.shape[-2], columns))
    return finished(team, params, sample(team.played, key, params, obs, mask), obs, mask)
