"""Files that are damaged, contradictory or dangerous are refused: OMAR's folders, .npy, HDF5."""

import os

import foreign
import h5py
import numpy as np
import pytest
from refusing import refused

from jaxomarl.data import formats, hdf5, npy

# --- OMAR's folders ---


@pytest.fixture
def omar(tmp_path):
    """A folder to spoil, and its one seed."""
    path = foreign.omar(tmp_path / "set", foreign.rows([5, 5]))
    return path, path / "seed_0_data"


def spoil(file, change):
    array = np.load(file)
    np.save(file, change(array))


@pytest.mark.parametrize("name", ["obs_1", "acs_2", "rews_0", "next_obs_1", "dones_2"])
def test_a_missing_file_of_an_agent(omar, name):
    (omar[1] / f"{name}.npy").unlink()
    refused(lambda: formats.read(omar[0]), f"{name}.npy")


def test_files_of_ragged_lengths(omar):
    spoil(omar[1] / "acs_1.npy", lambda x: x[:-1])
    refused(lambda: formats.read(omar[0]), "acs_1.npy", "10 rows", "9", "as many rows in each")


def test_seeds_of_other_agents(tmp_path):
    foreign.omar(tmp_path / "a", foreign.rows([5]), foreign.rows([5], (18, 18), (2, 2)))
    refused(
        lambda: formats.read(tmp_path / "a"),
        "the same number of agents in every seed",
        "seed_1_data",
    )


def test_contradictory_files_of_omar(omar, tmp_path):
    path, part = omar
    spoil(part / "dones_1.npy", lambda x: np.eye(10)[4])
    refused(lambda: formats.read(path), "dones_1.npy, row 4", "as in dones_0.npy")
    for i in range(3):
        np.save(part / f"dones_{i}.npy", np.eye(10)[2])
    refused(lambda: formats.read(path), "dones_0.npy, row 2", "inside an episode that continues")
    for i in range(3):
        np.save(part / f"dones_{i}.npy", np.eye(10)[9])
    refused(lambda: formats.read(path), "next_obs, row 4", "the next row's obs")
    one = foreign.omar(tmp_path / "torn", foreign.rows([5, 5, 5]))
    for i in range(3):
        spoil(
            one / f"seed_0_data/next_obs_{i}.npy",
            lambda x: np.where(np.arange(15)[:, None] == 6, 9.0, x),
        )
    refused(lambda: formats.read(one), "next_obs, row 6", "an episode of 5 rows", "found 2")


def test_flags_that_are_none(omar):
    spoil(omar[1] / "dones_0.npy", lambda x: x + 0.5)
    refused(lambda: formats.read(omar[0]), "dones_0.npy", "zeros and ones")


def test_a_link_that_leaves_the_folder(omar, tmp_path):
    file = omar[1] / "obs_0.npy"
    os.replace(file, tmp_path / "elsewhere.npy")
    file.symlink_to(tmp_path / "elsewhere.npy")
    refused(lambda: formats.read(omar[0]), "obs_0.npy", "a link that leaves it")


# --- npy ---


def header(text, body=b"\0" * 16, version=b"\1\0"):
    text = text.encode().ljust(64) + b"\n"
    wide = len(text).to_bytes(2 if version == b"\1\0" else 4, "little")
    return b"\x93NUMPY" + version + wide + text + body


NPY = {
    "no npy": (b"PK\3\4" + b"\0" * 50, "a .npy file"),
    "cut in the header": (
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }")[:40],
        "a header of",
    ),
    "truncated": (
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }", b"\0" * 15),
        "truncated",
    ),
    "more than the header says": (
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }"),
        "12 bytes",
    ),
    "more memory than there is": (
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 100000), }"),
        "800000000000000 bytes",
    ),
    "objects": (
        header("{'descr': '|O', 'fortran_order': False, 'shape': (2,), }"),
        "Python objects",
    ),
    "fields": (
        header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }"),
        "an array with fields",
    ),
    "texts": (header("{'descr': '<U4', 'fortran_order': False, 'shape': (1,), }"), "'<U4'"),
    "a program": (header("__import__('os').system('true')"), "dtype, order and shape"),
    "a version to come": (
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }", version=b"\4\0"),
        "(4, 0)",
    ),
}


@pytest.mark.parametrize("name", NPY)
def test_npy_files_that_are_refused(tmp_path, name):
    raw, word = NPY[name]
    (tmp_path / "x.npy").write_bytes(raw)
    refused(lambda: npy.map_array(tmp_path / "x.npy"), word)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", ">f4", "i8", "u1", "?"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 4), (2, 0)])
def test_npy_files_that_are_read(tmp_path, kind, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(kind)
    for name, x in {"c": array, "f": np.array(array, order="F")}.items():
        np.save(tmp_path / f"{name}.npy", x)
        found = npy.map_array(tmp_path / f"{name}.npy")
        assert found.dtype == np.dtype(kind) and found.shape == shape
        assert not found.flags.writeable or not found.size
        np.testing.assert_array_equal(found, array)


# --- HDF5 ---


@pytest.fixture
def omiga(tmp_path):
    return foreign.omiga(tmp_path / "x.hdf5", foreign.rows([5, 4], shared=True))


def replace(path, name, make):
    with h5py.File(path, "a") as file:
        whole = file[name][()]
        del file[name]
        make(file, name, whole)


HDF5 = {
    "external link": (
        lambda f, n, x: f.__setitem__(n, h5py.ExternalLink("other.hdf5", "/x")),
        "ExternalLink",
    ),
    "soft link": (
        lambda f, n, x: (f.__setitem__("y", x), f.__setitem__(n, h5py.SoftLink("/y"))),
        "SoftLink",
    ),
    "external storage": (
        lambda f, n, x: f.create_dataset(
            n, x.shape, x.dtype, external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)]
        ),
        "external or virtual storage",
    ),
    "virtual": (
        lambda f, n, x: f.create_virtual_dataset(n, _virtual(x)),
        "external or virtual storage",
    ),
    "objects": (
        lambda f, n, x: f.create_dataset(n, x.shape, h5py.vlen_dtype(np.float32)),
        "numbers of at most 8 bytes",
    ),
    "texts": (
        lambda f, n, x: f.create_dataset(n, x.shape, h5py.string_dtype()),
        "numbers of at most 8 bytes",
    ),
    "fields": (
        lambda f, n, x: f.create_dataset(n, x.shape, [("a", "f4")]),
        "numbers of at most 8 bytes",
    ),
    "half-written": (
        lambda f, n, x: f.create_dataset(n, x.shape, "f4", chunks=True),
        "half-written",
    ),
    "a bomb": (
        lambda f, n, x: f.create_dataset(n, (1 << 40, *x.shape[1:]), "f4", chunks=True),
        "at most 0 bytes",
    ),
    "a filter": (
        lambda f, n, x: f.create_dataset(n, data=x, chunks=True, scaleoffset=4),
        "filters",
    ),
    "a group": (lambda f, n, x: f.create_group(n), "an array"),
    "axes": (lambda f, n, x: f.create_dataset(n, data=x[0]), "3 axes"),
    "ragged": (lambda f, n, x: f.create_dataset(n, data=x[1:]), "10 rows"),
}


def _virtual(x):
    layout = h5py.VirtualLayout(x.shape, x.dtype)
    layout[...] = h5py.VirtualSource("other.hdf5", "x", x.shape)
    return layout


@pytest.mark.parametrize("name", HDF5)
def test_hdf5_files_that_are_refused(omiga, name):
    make, word = HDF5[name]
    replace(omiga, "o" if name == "a bomb" else "a", make)
    rows = {"ragged": "11 rows"}.get(name, word)
    refused(lambda: formats.read(omiga), rows)


def test_hdf5_that_is_truncated_or_something_else(omiga):
    whole = omiga.read_bytes()
    omiga.write_bytes(whole[: len(whole) // 2])
    refused(lambda: formats.read(omiga), "a complete HDF5 file", "truncated")
    omiga.write_bytes(b"something else")
    refused(lambda: formats.read(omiga), "one of these", "omiga: OMIGA's HDF5 file")


def test_without_h5py_the_way_out_is_said(omiga, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    refused(lambda: hdf5.h5py(), "h5py installed", "pip install 'jaxomarl[data]'")
    refused(lambda: formats.read(omiga), "pip install 'jaxomarl[data]'")


def test_a_buffer_that_contradicts_itself(tmp_path):
    r = foreign.rows([3, 5], (4, 4), (1, 1), shared=True)
    r = r._replace(action=[np.ones((8, 1), int)] * 2)

    def spoiled(name, index, value):
        path = foreign.pymarl(tmp_path / f"{name}{value}.h5", r, 3)
        with h5py.File(path, "a") as file:
            file[name][index] = value
        return lambda: formats.read(path)

    refused(
        spoiled("terminated", (1, 2), 1), "terminated, episode 1, step 2", "0 inside an episode"
    )
    refused(spoiled("filled", (0, 6), 1), "filled", "ones and then zeros")
    refused(spoiled("actions", (0, 1), 3), "actions", "whole numbers from 0 to 2", "found 3")
    refused(spoiled("terminated", (0, 0), 7), "terminated", "zeros and ones")
