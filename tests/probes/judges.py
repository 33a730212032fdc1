"""Critics that are given, for probes of policies, and what a policy's loss says under them."""

import dataclasses
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from alone import MODE, SPEC, far, gradient, jit_loop, played, trained, two_modes

from jaxomarl.networks.mlp import Network
from jaxomarl.stages import decentralised

DIFFUSERS = dict(
    policy_batch=64,
    policy_width=16,
    policy_lr=1e-2,
    critic_width=8,
    polyak=0.05,
    clip=10.0,
    levels=8,
)
"""Small settings of agents that learn diffusion policies."""


def given(module, value, members=2):
    """Within, agents of `module` have critics that say value(action) and learn nothing."""
    owner = module if hasattr(module, "agent_networks") else decentralised
    original = owner.agent_networks

    def fixed(*args, **kwargs):
        q = lambda params, obs, action: jnp.broadcast_to(
            value(action), (members, *action.shape[:-1])
        )
        return original(*args, **kwargs)._replace(q=Network(lambda key: jnp.zeros(1), q))

    return mock.patch.object(owner, "agent_networks", fixed)


def likes_the_good_mode(action):
    """1 - (a - MODE)^2 of the first column."""
    return 1 - (action[..., 0] - MODE) ** 2


def near_x(module):
    """Within, the noise networks of `module` say x and a little of their own: actions stay inside of the box."""
    original = module.noise_network

    def patched(*args):
        net = original(*args)
        return Network(net.init, lambda params, x, *rest: x + 0.02 * net.apply(params, x, *rest))

    return mock.patch.object(module, "noise_network", patched)


def modes(x):
    """Shares of an agent's first column near the good mode and near the bad one."""
    return np.mean(np.abs(x - MODE) < MODE / 2, axis=0), np.mean(
        np.abs(x + MODE) < MODE / 2, axis=0
    )


def difference(one, other):
    """The policy's gradient in one state less that in another."""
    return jax.tree.map(np.subtract, gradient(one.actor), gradient(other.actor))


def largest(tree):
    """The largest number of a tree."""
    return max(float(np.abs(x).max()) for x in jax.tree.leaves(tree))


def learned(module, cfg, steps, **swept):
    """Actions [sweep, 200, N, A] after training on two modes, under critics that like the good one."""
    data = two_modes()
    (name, values), *_ = swept.items()

    @jit_loop
    @jax.vmap
    def learn(value):
        with given(module, likes_the_good_mode):
            algorithm = module.policy(SPEC, dataclasses.replace(cfg, **{name: value}))
        return played(algorithm, trained(algorithm, data, steps), 200)

    return np.asarray(learn(jnp.array(values)))


def follows_targets(update, state, polyak):
    """The critics' step takes next actions of the target policy and not of the policy; targets follow both nets."""
    step = lambda actor: gradient(update(state._replace(actor=actor)).critic)
    first, moved = step(state.actor), jax.tree.map(lambda x: 30.0 * x, state.actor)
    assert far(step(state.actor._replace(params=moved.params)), first) == 0
    assert far(step(state.actor._replace(target=moved.target)), first) > 1e-3
    for before, net in zip(state, update(state), strict=True):
        want = jax.tree.map(lambda p, t: polyak * p + (1 - polyak) * t, net.params, before.target)
        assert far(net.target, want) < 1e-6
