"""Synthetic sets, written as other people's tools write them: numpy.save, flashbax, h5py, the minari library."""

import contextlib
import io
import json
import os
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np


class Rows(NamedTuple):
    """T transitions of whole episodes, in NumPy's own words; per agent where it is a list."""

    lengths: list[int]
    obs: list[np.ndarray]
    after: list[np.ndarray]  # the true successors
    action: list[np.ndarray]
    reward: np.ndarray  # [T, N]
    ended: np.ndarray  # [T] bool: the last of its episode
    died: np.ndarray  # [T] bool: of these, the terminations

    def stack(self, name):
        """[T, N, width]."""
        return np.stack(getattr(self, name), axis=1)

    @property
    def state(self):
        return np.concatenate(self.obs, axis=1)

    @property
    def next_state(self):
        return np.concatenate(self.after, axis=1)


def rows(lengths, obs_dims=(18, 18, 18), act_dims=(2, 2, 2), died=(), shared=False, seed=0):
    """Random rows; `died` lists the episodes that end by a termination."""
    rng, total, n = np.random.default_rng(seed), sum(lengths), len(obs_dims)
    last = np.cumsum(lengths) - 1
    ended, dead = np.zeros(total, bool), np.zeros(total, bool)
    ended[last], dead[last[list(died)]] = True, True
    obs = [rng.normal(size=(total, w)).astype(np.float32) for w in obs_dims]
    after = []
    for x in obs:
        then = np.roll(x, -1, axis=0)
        then[ended] = rng.normal(size=(len(lengths), x.shape[1]))
        after.append(then)
    action = [rng.uniform(-1, 1, (total, w)).astype(np.float32) for w in act_dims]
    reward = rng.normal(size=(total, 1 if shared else n)).astype(np.float32)
    return Rows(
        list(lengths),
        obs,
        after,
        action,
        np.repeat(reward, n, axis=1) if shared else reward,
        ended,
        dead,
    )


def omar(folder, *seeds, flags="zero", states=False):
    """One seed_<k>_data folder for each Rows; `flags`: zero, ended, or died."""
    for k, r in enumerate(seeds):
        part = Path(folder) / f"seed_{k}_data"
        part.mkdir(parents=True)
        dones = {"zero": np.zeros(len(r.ended)), "ended": r.ended, "died": r.died}[flags].astype(
            np.float64
        )
        for i in range(len(r.obs)):
            files = {
                "obs": r.obs[i],
                "acs": r.action[i],
                "rews": r.reward[:, i],
                "next_obs": r.after[i],
                "dones": dones,
            }
            files |= {"states": r.state, "next_states": r.next_state} if states else {}
            for name, array in files.items():
                np.save(part / f"{name}_{i}.npy", array.astype(np.float64) if k % 2 else array)
    return Path(folder)


def madiff(folder, r, ids=True):
    """MADiff's one array per field, with the one-hot id first."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    obs, n = r.stack("obs"), len(r.obs)
    if ids:
        obs = np.concatenate(
            [np.broadcast_to(np.eye(n, dtype=np.float32), (len(obs), n, n)), obs], axis=2
        )
    files = {
        "obs": obs,
        "actions": r.stack("action"),
        "rewards": r.reward,
        "path_lengths": np.array(r.lengths),
    }
    files["discounts"] = np.repeat(1.0 - r.ended[:, None], n, axis=1).astype(np.float32)
    for name, array in files.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def vault(folder, tree):
    """A vault of leaves [B, T, ...] through flashbax; `folder` is <anything>/<name>.vlt/<uid>."""
    import jax
    import jax.numpy as jnp
    from flashbax.buffers.trajectory_buffer import TrajectoryBufferState
    from flashbax.vault import Vault

    folder, tree = Path(folder), jax.tree.map(jnp.asarray, tree)
    steps = tree["observations"].shape[1]
    with contextlib.redirect_stdout(io.StringIO()):
        made = Vault(
            folder.parent.name, tree, rel_dir=str(folder.parent.parent), vault_uid=folder.name
        )
        state = TrajectoryBufferState(
            experience=tree, current_index=jnp.array(0), is_full=jnp.array(True)
        )
        made.write(state, source_interval=(0, steps))
    return folder


def leaves(*seeds, flags="ended"):
    """Leaves [B, T, ...] of Rows of equal size; flags as OG-MARL has them (ended) or told apart (died)."""

    lead = lambda get: np.stack([get(r) for r in seeds])
    n = len(seeds[0].obs)
    wide = lambda x: np.repeat(x[:, None], n, axis=1).astype(np.float32)
    return {
        "observations": lead(lambda r: r.stack("obs")),
        "actions": lead(lambda r: r.stack("action")),
        "rewards": lead(lambda r: r.reward),
        "terminals": lead(lambda r: wide(r.ended if flags == "ended" else r.died)),
        "truncations": lead(
            lambda r: wide(np.zeros_like(r.ended) if flags == "ended" else r.ended & ~r.died)
        ),
        "infos": {"state": lead(lambda r: r.state)},
    }


def read_vault(folder):
    """What flashbax reads."""
    from flashbax.vault import Vault

    folder = Path(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        held = Vault(
            folder.parent.name, rel_dir=str(folder.parent.parent), vault_uid=folder.name
        ).read()
    return {k: {j: np.asarray(x) for j, x in v.items()} if isinstance(v, dict) else np.asarray(v)
            for k, v in held.experience.items()}  # fmt: skip


def omiga(path, r, junk=7.0):
    """length + 1 rows per episode, the last a dummy with the true successor and a reward that means nothing."""
    ends = np.flatnonzero(r.ended)
    extend = lambda x, then: np.insert(x, ends + 1, then, axis=0)
    with h5py.File(path, "w") as file:
        file["o"] = extend(r.stack("obs"), r.stack("after")[ends])
        file["s"] = extend(
            r.state[:, None].repeat(len(r.obs), 1),
            r.next_state[ends][:, None].repeat(len(r.obs), 1),
        )
        file["a"] = extend(r.stack("action"), junk)
        file["r"] = extend(r.reward[:, :1], junk)
        file["d"] = extend(np.zeros((len(r.ended), 1)), 1.0)
    return Path(path)


def pymarl(path, r, choices, successor=True, room=2):
    """Episodes padded to the longest and `room` more; actions of Rows are taken for whole numbers [T, 1]."""
    n, many, steps = len(r.obs), len(r.lengths), max(r.lengths) + room
    first = np.cumsum(r.lengths) - r.lengths
    make = lambda *shape, kind=np.float32: np.zeros((many, steps, *shape), kind)
    f = {
        "obs": make(n, r.obs[0].shape[1]),
        "state": make(r.state.shape[1]),
        "actions": make(n, 1, kind=np.int64),
        "avail_actions": make(n, choices, kind=np.int32),
        "reward": make(1),
        "terminated": make(1, kind=np.uint8),
        "filled": make(1, kind=np.int64),
        "probs": make(n, choices),
    }
    for e, (a, length) in enumerate(zip(first, r.lengths, strict=True)):
        b, seen = a + length, length + int(successor)
        f["obs"][e, :length], f["state"][e, :length] = r.stack("obs")[a:b], r.state[a:b]
        if successor:
            f["obs"][e, length], f["state"][e, length] = (
                r.stack("after")[b - 1],
                r.next_state[b - 1],
            )
        f["actions"][e, :length] = r.stack("action")[a:b]
        f["avail_actions"][e, :seen] = 1
        f["reward"][e, :length, 0], f["terminated"][e, :length, 0] = r.reward[a:b, 0], r.died[a:b]
        f["filled"][e, :seen] = 1
    with h5py.File(path, "w") as file:
        for name, array in f.items():
            file.create_dataset(name, data=array, compression="gzip")
    return Path(path)


def minari(folder, r, known=1, dialects=()):
    """Our layout, written by the minari library; the entry that it does not know is added to its metadata."""
    from gymnasium import spaces

    os.environ["MINARI_DATASETS_PATH"] = str(Path(folder).parent)
    import minari as library
    from minari.data_collector import EpisodeBuffer

    n, buffers, a = len(r.obs), [], 0
    names = [f"agent_{i}" for i in range(n)]
    for e, length in enumerate(r.lengths):
        b, died = a + length, bool(r.died[a + length - 1])
        flags = np.arange(length) == length - 1
        buffers.append(
            EpisodeBuffer(
                id=e,
                observations={
                    m: np.vstack([r.obs[i][a:b], r.after[i][b - 1 : b]])
                    for i, m in enumerate(names)
                },
                actions={m: r.action[i][a:b] for i, m in enumerate(names)},
                rewards=list(r.reward[a:b].mean(axis=1)),
                terminations=list(flags & died),
                truncations=list(flags & (not died)),
                infos={
                    "rewards": np.vstack([np.zeros((1, n), np.float32), r.reward[a:b]]),
                    "state": np.vstack([r.state[a:b], r.next_state[b - 1 : b]]),
                },
            )
        )
        a = b
    box = lambda x, bound: spaces.Box(-bound, bound, (x.shape[1],), np.float32)
    library.create_dataset_from_buffers(
        dataset_id=Path(folder).name,
        buffer=buffers,
        observation_space=spaces.Dict({m: box(x, 1e9) for m, x in zip(names, r.obs, strict=True)}),
        action_space=spaces.Dict({m: box(x, 1.0) for m, x in zip(names, r.action, strict=True)}),
        algorithm_name="-", author="-", author_email="-", code_permalink="-", description="-",
    )  # fmt: skip
    file = Path(folder) / "data" / "metadata.json"
    said = json.loads(file.read_text())
    said["jaxomarl"] = {
        "layout": 1,
        "choices": [None] * n,
        "dialects": list(dialects),
        "distinct": True,
    }
    file.write_text(json.dumps(said))
    return Path(folder)


def read_minari(folder):
    """The episodes, as the minari library reads them."""
    from minari import MinariDataset

    return list(MinariDataset(str(Path(folder) / "data")).iterate_episodes())


def replaced(spec, **changes):
    """A task's spec with some facts changed."""
    import dataclasses

    return dataclasses.replace(spec, **changes)


def ruled(task, **facts):
    """A task with other facts in its spec."""
    return task._replace(env=task.env._replace(spec=replaced(task.env.spec, **facts)))


def same(raw, r, known=True, behaviour=None):
    """Every value, and where episodes begin and end; `known` says whether the last successors are the true ones."""
    ends = np.cumsum(np.array(r.lengths) + 1) - 1
    now = np.setdiff1d(np.arange(len(raw.step)), ends)
    assert len(raw.step) == len(r.ended) + len(r.lengths)
    np.testing.assert_array_equal(
        raw.left, np.concatenate([np.arange(n, -1, -1) for n in r.lengths])
    )
    np.testing.assert_array_equal(raw.step, np.concatenate([np.arange(n + 1) for n in r.lengths]))
    assert raw.agents == len(r.obs)
    for i in range(raw.agents):
        np.testing.assert_array_equal(raw.obs[i][now], r.obs[i])
        np.testing.assert_array_equal(raw.obs[i][ends], (r.after if known else r.obs)[i][r.ended])
        np.testing.assert_array_equal(raw.action[i][now], r.action[i])
        assert not raw.action[i][ends].any()
    np.testing.assert_array_equal(raw.reward[now], r.reward)
    assert not raw.reward[ends].any() and not raw.done[ends].any()
    np.testing.assert_array_equal(raw.known[now], np.where(r.ended, float(known), 1.0))
    if raw.state is not None:
        np.testing.assert_array_equal(raw.state[now], r.state)
        np.testing.assert_array_equal(
            raw.state[ends], (r.next_state if known else r.state)[r.ended]
        )
    np.testing.assert_array_equal(
        raw.behaviour, np.zeros(len(raw.step)) if behaviour is None else behaviour
    )


def climbing():
    """Rows of the climbing game: constant observations, one step, three actions as whole numbers."""
    rng, r = np.random.default_rng(0), rows([1] * 6, (1, 1), (1, 1), died=range(6), shared=True)
    ones, act = [np.ones((6, 1), np.float32)] * 2, [rng.integers(0, 3, (6, 1)) for _ in range(2)]
    act[0][0] = 2
    return r._replace(obs=ones, after=ones, action=act)
