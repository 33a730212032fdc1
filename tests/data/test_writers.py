"""What we write, the formats' own libraries read, and so do we."""

import foreign
import jax
import numpy as np
import pytest
from foreign import same

from jaxomarl.base import JaxomarlError
from jaxomarl.data import catalog as sets
from jaxomarl.data import formats
from jaxomarl.data.dataset import content_hash
from jaxomarl.data.raw import from_dataset
from jaxomarl.envs import catalog


@pytest.fixture(scope="module")
def played():
    """Rows of the climbing game."""
    return foreign.climbing()


# --- the writers ---


def test_flashbax_reads_the_vault_that_we_write(tmp_path):
    r = foreign.rows([4, 3], (5, 3), (2, 1), died=[0])
    raw = formats.read(foreign.omar(tmp_path / "from", r, flags="ended"))
    formats.write(
        tmp_path / "v.vlt" / "Good",
        raw._replace(behaviour=np.repeat([3, 1], [5, 4]).astype(np.int32)),
        "vault",
    )
    held = foreign.read_vault(tmp_path / "v.vlt" / "Good")
    np.testing.assert_array_equal(held["observations"][0, :, 0], r.obs[0])
    np.testing.assert_array_equal(held["observations"][0, :, 1], np.pad(r.obs[1], ((0, 0), (0, 2))))
    np.testing.assert_array_equal(held["rewards"][0], r.reward)
    np.testing.assert_array_equal(held["terminals"][0, :, 1], r.ended)
    back = formats.read(tmp_path / "v.vlt" / "Good")
    same(back, r, known=False, behaviour=np.repeat([3, 1], [5, 4]))  # true widths again
    assert back.quality == "good"


def test_the_minari_library_reads_the_set_that_we_write(tmp_path):
    r = foreign.rows([4, 3], (5, 3), (2, 1), died=[0])
    raw = formats.read(foreign.omar(tmp_path / "from", r, flags="ended"))._replace(distinct=True)
    raw.done[[8 - 1]] = 0.0
    raw.known[7] = 0.0
    raw.behaviour[5:] = 4
    formats.write(tmp_path / "games" / "ours-v0", raw, "minari")
    first, second = foreign.read_minari(tmp_path / "games" / "ours-v0")
    for i, m in enumerate(("agent_0", "agent_1")):
        np.testing.assert_array_equal(
            second.observations[m], np.vstack([r.obs[i][4:], r.after[i][-1:]])
        )
        np.testing.assert_array_equal(first.actions[m], r.action[i][:4])
    np.testing.assert_allclose(first.rewards, r.reward[:4].mean(axis=1), rtol=1e-6)
    assert first.terminations.tolist() == [False] * 3 + [True] and not second.terminations.any()
    assert second.truncations.tolist() == [False, False, True]
    back = formats.read(tmp_path / "games" / "ours-v0")
    for a, b in zip(jax.tree.leaves(raw[1:10]), jax.tree.leaves(back[1:10]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert back.distinct and (back.state is None) == (raw.state is None)


@pytest.mark.parametrize("name", ["vault", "minari"])
def test_discrete_sets_go_round(name, tmp_path, played):
    raw = formats.read(foreign.pymarl(tmp_path / "c.h5", played, 3))
    formats.write(tmp_path / "out" / "a-v0", raw, name)
    back = formats.read(tmp_path / "out" / "a-v0")
    assert back.discrete and back.distinct
    for field in ("action", "available", "state", "done", "left", "reward"):
        for a, b in zip(
            jax.tree.leaves(getattr(raw, field)), jax.tree.leaves(getattr(back, field)), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(JaxomarlError, match="continuous"):
        formats.write(tmp_path / "no", raw, "omar")


@pytest.mark.parametrize("name", ["omar", "minari", "vault"])
def test_our_own_data_goes_out_and_comes_back_as_the_same_content(name, tmp_path, spread):
    data, manifest = sets.load(spread, "random", 100)
    formats.write(tmp_path / "set", from_dataset(data, spread.env.spec), name)
    back, _ = sets.load(spread, str(tmp_path / "set"))
    if name == "vault":  # all but the last successors
        assert (np.asarray(back.known) == 0).sum() == 4
        np.testing.assert_array_equal(np.asarray(back.action), np.asarray(data.action))
    else:
        assert content_hash(back) == manifest["sha256"]


@pytest.mark.parametrize("name", ["omar", "vault"])
def test_what_dialect_a_written_set_has_is_not_forgotten(name, tmp_path):
    tag = catalog.make("mpe/tag")
    data, _ = sets.load(tag, "random", 50)
    formats.write(tmp_path / "set", from_dataset(data, tag.env.spec), name)
    assert formats.read(tmp_path / "set").dialects == ("mpe-own-prey",)
    assert sets.load(tag, str(tmp_path / "set"))[1]["transitions"] == 50
