"""Mean flow BC: agents imitate the data by a mean velocity, which one network call follows.

**Paper**. Geng et al. 2025, "Mean Flows for One-step Generative Modeling", Algorithms 1 and 2, on
actions: what OM2P (2025) trains its policies by.

**Pseudo-code**. For every agent i on (o_i, a_i), or for the team on all (o, a):

    1   for each gradient step on a batch of transitions:     stage "policy" (stages/flow.py)
    2       r <= t, z ~ N(0, I);  x = (1 - t) a + t z;  w = z - a
                                                              (policies/flows.py, `ordered_times`)
    3       u: step down mean |u(x, r, t, o) - sg[ w - (t - r) (w d_x u + d_t u) ]|^2
                                                              (diffusion/flows.py, `mean_flow_loss`)
    4   act: play clip (z - u(z, 0, 1, o)): one call

        model = separate    each agent's mean velocity of its own rows
        model = joint       one of all rows; agents act on all observations

**Differs**.

- The times are uniform, r = t in half of the rows and (0, 1) in a tenth. The paper's are sigmoids
  of a normal, with r = t in three quarters; policies act at (0, 1) alone.
- The loss is a plain square. The paper divides it by a power of itself. Its minimum is then not
  the mean where the targets of one x differ, as those of two modes do.
- The derivative of line 3 is exact, one forward-mode product. OM2P's default is a difference over
  1e-12, which is zero in float32, and its target has the other sign of (t - r).
- The learning rate falls to zero by a cosine, as that of `diffusion-bc` does.

**Checked**. tests/diffusion/test_flows.py (the identity on a linear field, the least loss),
tests/probes/test_flow_bc.py (modes in their shares by one call), tests/contract.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Dataset, Spec, System, one_stage
from jaxomarl.config import config
from jaxomarl.data.dataset import as_is
from jaxomarl.optim import Params
from jaxomarl.policies.flows import (
    in_box,
    jump_end,
    masked_noise,
    mean_flow_loss,
    team_mean_velocity,
)
from jaxomarl.stages import clone, decentralised
from jaxomarl.stages.flow import (
    IMITATION_FIELDS,
    MODELS,
    Imitation,
    behaviour_learner,
    imitation_rate,
)


@config
class Config(Imitation):
    """Mean flow BC's settings."""


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """Build the learner: the mean velocity of each agent's actions, or of the team's."""
    net = team_mean_velocity(spec, cfg.policy_width, cfg.model)
    action_mask = jnp.asarray(spec.act_mask)

    # line 4
    def play(key: Key[Array, ""], params: Params, obs: Float[Array, "N O"]) -> Array:
        z = masked_noise(key, action_mask)
        return in_box(jump_end(net, params, z, obs, action_mask), action_mask)

    # lines 1-3
    return behaviour_learner(
        spec,
        cfg,
        net,
        imitation_rate(cfg),
        cfg.policy_batch,
        mean_flow_loss,
        play,
        centralised=cfg.model == "joint",
    )


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that mean flow BC cannot train on."""
    decentralised.check(spec, cfg, data, {"model": MODELS})


pipeline = one_stage("mean-flow", policy, IMITATION_FIELDS, clone.drawn_health)
MEAN_FLOW = System(Config, check, as_is, pipeline)
