"""A task of choices whose agents differ: in how many there are, in which are legal, and in when they die."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxomarl.base import Environment, Spec, Task, TimeStep
from jaxomarl.envs.recipes import random_play

SPEC = Spec(
    (3, 2, 3), (3, 2, 3), state_dim=4, horizon=4, discrete=True, dialect="contract-choices-v1"
)
PUSH = np.random.default_rng(0).normal(size=(3, 3, 4)).astype(np.float32)
FAR = 1.6  # an agent dies where its coordinate is beyond, and the episode ends with the first agent


def timestep(x, alive, dead_before):
    """The first action is always legal; the others of a living agent where the state allows them."""
    seen = jnp.stack([x[:3], jnp.pad(jnp.tanh(x[2:]), (0, 1)), x[1:] * x[0]])
    allowed = jnp.stack([jnp.ones(3), x[:3] > -0.3, x[1:] > -0.3], axis=-1) > 0
    first = jnp.arange(3) == 0
    return TimeStep(
        obs=seen * alive[:, None] * SPEC.obs_mask,
        state=x,
        reward=jnp.full(3, x.sum()) * (1.0 - dead_before),
        done=1.0 - alive[0],
        alive=alive,
        available=(first | (allowed & (alive[:, None] > 0))) & jnp.asarray(SPEC.act_mask > 0),
        info={"win": (x[3] > 0).astype(jnp.float32)},
    )


def reset(key):
    x = 0.5 * jax.random.normal(key, (4,))
    alive = jnp.ones(3)
    return (x, alive), timestep(x, alive, jnp.ones(()))


def step(key, state, action):
    x, alive = state
    pushed = jnp.einsum("na,nas->s", action * alive[:, None], PUSH)
    x = 0.9 * x + 0.4 * pushed + 0.1 * jax.random.normal(key, (4,))
    living = alive * (jnp.abs(x[:3]) < FAR)
    return (x, living), timestep(x, living, jnp.zeros(()))


ENV = Environment(SPEC, reset, step)
TASK = Task("contract/choices", ENV, {"random": random_play(ENV)}, "random", episodes=3)
