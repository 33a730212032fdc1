"""A batch of few different arrays, for probes that look at one or two of its blocks."""

from jaxomarl.base import Batch


def repeated_batch(obs, state, action, line, wide):
    """A batch whose successors are its own rows; the other blocks are `line` [B] or `wide` [B, N, A]."""
    return Batch(
        obs=obs,
        state=state,
        action=action,
        reward=wide[..., 0],
        team_reward=line,
        next_obs=obs,
        next_state=state,
        next_action=wide,
        done=line,
        last=line,
        known=line,
        alive=wide[..., 0],
        available=wide,
        next_available=wide,
    )
