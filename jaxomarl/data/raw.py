"""What a reader finds in a file of some format, before it is compared with a task; and a data set seen the same way."""

from typing import NamedTuple

import numpy as np

from jaxomarl.base import Dataset, Spec


class Raw(NamedTuple):
    """Rows of whole episodes, back to back, each with its successor row, in the format's own units; N agents, M rows.

    Agents are a tuple, so that each keeps its true width; nothing is padded, clipped or checked against a task yet.
    """

    format: str
    """Which format was read: a key of `formats.FORMATS`, or "jaxomarl"."""
    obs: tuple[np.ndarray, ...]
    """Per agent [M, o_i], float32."""
    action: tuple[np.ndarray, ...]
    """Per agent [M, a_i], float32; one-hot where discrete; zeros in an episode's last row."""
    reward: np.ndarray
    """[M, N], float32; zeros in an episode's last row."""
    done: np.ndarray
    """[M], 1.0 where the transition that starts here terminates (a time-out is none)."""
    step: np.ndarray
    """[M], int32: position in the episode."""
    left: np.ndarray
    """[M], int32: rows after this one in the episode; 0 marks the successor row."""
    known: np.ndarray
    """[M], 0.0 where the successor is a dummy copy, because the format lost it."""
    behaviour: np.ndarray
    """[M], int32: which behaviour (or seed folder, or vault index) made the row; zeros where unknown."""
    state: np.ndarray | None = None
    """[M, S], float32; None where the format has none."""
    available: np.ndarray | None = None
    """[M, N, A], float32: the legal actions, where the format has them."""
    discrete: bool = False
    quality: str = ""
    """Its name among the qualities, guessed from the path; "" where it has none."""
    dialects: tuple[str, ...] = ()
    """Names of the rules that it may have been made under, likeliest first; () where nothing tells."""
    evidence: tuple[str, ...] = ()
    """One sentence for each hint that the dialects and repairs were inferred from."""
    repairs: tuple[str, ...] = ()
    """What was changed in reading, with counts; it goes into the manifest."""

    @property
    def agents(self) -> int:
        """Number of agents N."""
        return len(self.obs)


def seen(data: Dataset, spec: Spec, quality: str = "") -> Raw:
    """A packed data set as a reader would have found it: padding cut off."""
    obs, action = np.asarray(data.obs), np.asarray(data.action)
    available = data.extra.get("available")
    return Raw(
        "jaxomarl",
        tuple(obs[:, i, :width] for i, width in enumerate(spec.obs_dims)),
        tuple(action[:, i, :width] for i, width in enumerate(spec.act_dims)),
        np.asarray(data.reward),
        np.asarray(data.done),
        np.asarray(data.step),
        np.asarray(data.left),
        np.asarray(data.known),
        np.asarray(data.behaviour),
        np.asarray(data.state),
        None if available is None else np.asarray(available),
        spec.discrete,
        quality,
        (spec.dialect,),
    )
