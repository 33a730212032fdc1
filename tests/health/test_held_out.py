"""Which episodes are held out, and that training never draws from them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.base import Episodes, Spec
from jaxomarl.data.dataset import pack, sample_transitions
from jaxomarl.data.held_out import SHARE, hold_out, split
from jaxomarl.data.windows import sample_windows

SPEC = Spec((1,), (1,), 1, horizon=5)


def episodes(lengths):
    """Episodes whose observation is their number."""
    step = np.concatenate([np.arange(n + 1) for n in lengths])
    left = np.concatenate([np.arange(n, -1, -1) for n in lengths])
    number = np.repeat(np.arange(len(lengths)), np.array(lengths) + 1).astype(np.float32)
    zeros = np.zeros((len(step), 1, 1), np.float32)
    return pack(
        Episodes(
            obs=jnp.asarray(number[:, None, None]),
            state=jnp.asarray(number[:, None]),
            action=jnp.asarray(zeros),
            reward=jnp.asarray(zeros[..., 0]),
            done=jnp.asarray(zeros[:, 0, 0]),
            step=jnp.asarray(step),
            left=jnp.asarray(left),
            behaviour=jnp.zeros(len(step), jnp.int32),
        ),
        SPEC,
    )


@pytest.mark.parametrize(
    "count, expected", [(1, 0), (2, 1), (3, 1), (4, 2), (50, 2), (200, 4), (1000, 20)]
)
def test_two_percent_and_at_least_two_but_never_more_than_half(count, expected):
    held = hold_out(episodes([3] * count))
    assert len(held.episodes) == expected and held.of == count
    assert expected <= max(2, SHARE * count)


def test_whole_episodes_are_held_out_and_the_parts_are_disjoint_and_complete():
    data = episodes([1, 4, 2, 5, 3] * 20)
    held = hold_out(data)
    rest, own = split(data, held)
    number = lambda part: np.asarray(part.obs)[np.asarray(part.starts), 0, 0]
    assert set(number(own)) == set(held.episodes)
    assert set(number(rest)) == set(range(100)) - set(held.episodes)
    assert len(rest.starts) + len(own.starts) == len(data.starts)
    for part in (rest, own):
        left = np.asarray(part.left)
        assert left[-1] == 0 and (np.asarray(part.step)[left == 0] > 0).all()
        assert not (left[np.asarray(part.starts)] == 0).any()


def test_training_never_draws_a_held_out_row():
    data = episodes([1, 4, 2, 5, 3] * 20)
    held = hold_out(data)
    rest, _ = split(data, held)
    drawn = sample_transitions(jax.random.key(0), rest, 5000)
    windows = sample_windows(jax.random.key(1), rest, 2000, horizon=3, history=2)
    seen = set(np.unique(drawn.obs)) | set(np.unique(windows.obs))
    assert not seen & set(held.episodes)
    assert len(seen) == 98


def test_repeated_starts_stay_repeated_and_extras_follow_their_rows():
    data = episodes([3] * 100)
    repeated = dataclasses.replace(
        data, starts=jnp.repeat(data.starts, 2), extra={"number": data.obs[:, 0, 0]}
    )
    held = hold_out(repeated)
    for part in split(repeated, held):
        assert (np.diff(np.asarray(part.starts))[::2] == 0).all()
        assert (np.asarray(part.extra["number"]) == np.asarray(part.obs)[:, 0, 0]).all()


def test_nothing_is_held_out_of_one_episode_or_of_no_data():
    data = episodes([3])
    assert split(data, hold_out(data)) == (data, None)
    assert hold_out(None).facts() == {"episodes": 0, "of": 0}


def test_the_choice_is_the_same_every_time():
    one, two = (hold_out(episodes([2] * 300)) for _ in range(2))
    assert (one.episodes == two.episodes).all()


def test_repeated_starts_are_held_out_with_their_episode():
    data = episodes([2] * 100)
    twice = np.repeat(np.asarray(data.starts), 2)

    data = dataclasses.replace(data, starts=jnp.asarray(twice, jnp.int32))
    held = hold_out(data)
    rest, own = split(data, held)
    assert len(own.starts) == 2 * 2 * 2
    assert len(rest.starts) == 2 * 98 * 2
