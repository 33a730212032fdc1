"""How much the critic counts in a policy's loss."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def normalised_value(
    q: Float[Array, " B"], strength: float | Float[Array, ""], scale: Float[Array, " B"]
) -> Float[Array, ""]:
    """-strength mean(q) / sg[mean |scale|]: what c Q says for any c > 0, Q itself says.

    Without the stop-gradient, or with a signed mean, all values of one sign would cancel or turn the objective over.
    Source: Fujimoto and Gu 2021 (TD3+BC), eq. 5, where `scale` is q; 1e-8 is added to the divisor.
    """
    return -strength * jnp.mean(q) / (jax.lax.stop_gradient(jnp.mean(jnp.abs(scale))) + 1e-8)
