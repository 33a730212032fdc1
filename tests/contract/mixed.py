"""A task whose agents differ: in the widths of observations and actions, in what they see, move and are paid."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxomarl.base import Dataset, Environment, Episodes, Spec, Task, TimeStep

SPEC = Spec((3, 2, 3), (2, 1, 1), state_dim=4, horizon=3, dialect="contract-v1")
PUSH = (
    np.random.default_rng(0)
    .normal(size=(SPEC.agents, SPEC.act_width, SPEC.state_dim))
    .astype(np.float32)
)
FAR = 1.2  # the episode ends where the last coordinate is beyond


def observe(x):
    """[S] -> [N, O]: the first agent sees half of the state as it is, the second its tanh, the third products."""
    seen = (x[:3], jnp.tanh(x[2:]), x[jnp.array([0, 1, 3])] * x[3])
    return jnp.stack([jnp.pad(o, (0, SPEC.obs_width - o.shape[0])) for o in seen])


def timestep(x, action):
    cost = jnp.sum(action**2 * SPEC.act_mask, axis=-1)
    return TimeStep(
        obs=observe(x),
        state=x,
        reward=x[: SPEC.agents] - 0.1 * cost,
        done=(jnp.abs(x[3]) > FAR).astype(jnp.float32),
        alive=jnp.ones(SPEC.agents),
        available=jnp.asarray(SPEC.act_mask > 0),
        info={"distance": jnp.abs(x).sum()},
    )


def reset(key):
    x = 0.5 * jax.random.normal(key, (SPEC.state_dim,))
    return x, timestep(x, jnp.zeros((SPEC.agents, SPEC.act_width)))


def step(key, x, action):
    pushed = jnp.einsum("na,nas->s", jnp.clip(action, -1, 1) * SPEC.act_mask, PUSH)
    x = 0.9 * x + 0.5 * pushed + 0.1 * jax.random.normal(key, (SPEC.state_dim,))
    return x, timestep(x, action)


def recipe(key, rows: int) -> Episodes:
    """Uniform actions, played until `rows` transitions are there."""
    parts, count = [], 0
    for e in range(rows):
        k_reset, k_act, k_step = jax.random.split(jax.random.fold_in(key, e), 3)
        actions = (
            jax.random.uniform(k_act, (SPEC.horizon, *SPEC.act_mask.shape), minval=-1)
            * SPEC.act_mask
        )
        times = rolled(k_reset, k_step, actions)
        ends = np.flatnonzero(times.done[1:] > 0)
        length = int(ends[0]) + 1 if ends.size else SPEC.horizon
        parts.append(one_episode(times, np.asarray(actions), length))
        count += length
        if count >= rows:
            break
    return jax.tree.map(lambda *blocks: jnp.asarray(np.concatenate(blocks)), *parts)


@jax.jit
def rolled(k_reset, k_step, actions):
    """The time steps of `horizon` steps, the reset's first."""
    x, first = reset(k_reset)
    then = []
    for t in range(SPEC.horizon):
        x, now = step(jax.random.fold_in(k_step, t), x, actions[t])
        then.append(now)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), first, *then)


def one_episode(times, actions, length: int) -> Episodes:
    after = lambda x: np.pad(np.asarray(x)[:length], [(0, 1)] + [(0, 0)] * (np.ndim(x) - 1))
    return Episodes(
        obs=np.asarray(times.obs)[: length + 1],
        state=np.asarray(times.state)[: length + 1],
        action=after(actions),
        reward=after(times.reward[1:]),
        done=after(times.done[1:]),
        step=np.arange(length + 1, dtype=np.int32),
        left=np.arange(length, -1, -1, dtype=np.int32),
        behaviour=np.zeros(length + 1, np.int32),
    )


TASK = Task(
    "contract/mixed", Environment(SPEC, reset, step), {"uniform": recipe}, "uniform", episodes=3
)


def junk(data: Dataset, block: str, spec: Spec = SPEC) -> Dataset:
    """The same data set with numbers in the padded columns of `block`, "obs" or "action"."""
    mask = {"obs": spec.obs_mask, "action": spec.act_mask}[block]
    parts = jax.tree.map(np.asarray, data.layout.unpack(data.rows))
    drawn = np.random.default_rng(1).normal(size=parts[block].shape)
    parts[block] = parts[block] + (1 - mask) * drawn
    rows = np.concatenate(
        [parts[k].reshape(len(data.rows), -1) for k in data.layout.blocks], axis=1
    )
    return dataclasses.replace(data, rows=jnp.asarray(rows, jnp.float32))
