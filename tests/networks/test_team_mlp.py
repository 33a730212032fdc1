"""A team's MLP is the MLP of what all see, and of the agent's one-hot."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxomarl.networks.agents import with_agent_number
from jaxomarl.networks.mlp import TeamMLP, mlp, network


def test_it_is_the_perceptron_of_input_and_number():
    team = network(TeamMLP((8, 8), 2, 3), 5)
    plain = mlp(5 + 3, (8, 8), 2)
    params = team.init(jax.random.key(0))
    first = params["Dense_0"]
    kernel = jnp.concatenate([first["kernel"], params["number"]])
    joined = {name: layer for name, layer in params.items() if name != "number"}
    joined["Dense_0"] = {"kernel": kernel, "bias": first["bias"]}

    x = jax.random.normal(jax.random.key(1), (4, 5))
    for_each = jnp.broadcast_to(x[:, None, :], (4, 3, 5))
    expected = plain.apply(joined, with_agent_number(for_each, 3))
    np.testing.assert_allclose(team.apply(params, x), expected, rtol=1e-5, atol=1e-6)


def test_agents_start_apart():
    team = network(TeamMLP((8,), 1, 3), 5)
    out = team.apply(team.init(jax.random.key(0)), jnp.ones(5))[:, 0]
    assert len(np.unique(np.round(np.asarray(out), 6))) == 3
