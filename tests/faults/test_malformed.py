"""Damaged sets end in our error or in a read that keeps its promises; malicious ones run nothing and read nothing."""

import io
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import malformed
import numpy as np
import pytest
from readers import READERS

from jaxomarl import torchfile
from jaxomarl.base import JaxomarlError
from jaxomarl.data import formats

SETS = {name: 40 * READERS[name].share for name in formats.FORMATS}
"""How many damaged sets of each format: 1,000."""
OF_DATA = (*SETS, "own set", "arrays", "torch and prey", "checkpoint")
SOME = {name: 3 * READERS[name].share for name in OF_DATA}
"""In every session: of readers whose good samples need no sweep. Runs and sweeps are damaged in test_damaged.py."""
OTHERS = dict.fromkeys((name for name in READERS if name not in SETS), 5)
"""How many malformed inputs of each other reader. `make faults` has 10,000 of all."""


@pytest.mark.parametrize(
    "counts",
    [
        pytest.param(SETS, marks=pytest.mark.long, id="sets"),
        pytest.param(OTHERS, marks=pytest.mark.long, id="others"),
        pytest.param(SOME, id="some"),
    ],
)
def test_damaged_files_end_in_one_error_or_in_a_sound_read(tmp_path, counts, root):
    """Each within 10 seconds and 1 GiB more than the process had; a crash of a C library would end the process."""
    script = Path(malformed.__file__)
    env = os.environ | {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    wanted = [f"{name}=0:{count}" for name, count in counts.items()]
    command = [sys.executable, str(script), str(tmp_path), "1", *wanted]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    lines = done.stdout.splitlines()
    ends = [line.split()[0] for line in lines[1::2]]
    other = [
        lines[2 * k : 2 * k + 2] for k, end in enumerate(ends) if end not in ("read", "refused")
    ]
    assert done.returncode == 0, f"{other or lines[-2:]}, {done.returncode}: {done.stderr[-2000:]}"
    assert len(ends) == sum(counts.values()) and set(ends) == {"read", "refused"}
    assert ends.count("refused") > 0.3 * len(ends), "the damage is too slight to show anything"
    read = {line.split(", ")[1] for line in lines[::2]}
    assert read == set(counts)


WATCHED = """
import os, time, malformed, readers
malformed.SECONDS = 1
def refused():
    raise malformed.JaxomarlError("x")
ways = {
    "crash": lambda: os.kill(os.getpid(), 11),
    "stall": lambda: time.sleep(20),
    "memory": lambda: bytearray(3 << 30),
    "another error": lambda: {}["x"],
    "an unsound read": lambda: readers.check_rows(None),
    "refused": refused,
}
for name, way in ways.items():
    child = os.fork()
    if not child:
        try:
            malformed.limit()
            print(malformed.watched(way)[0], flush=True)
        except BaseException as error:
            print(type(error).__name__, flush=True)
            os._exit(1)
        os._exit(0)
    print(name, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_the_watch_would_see_it(root):
    """A read that crashes, stalls, takes too much memory, raises another error or gives nonsense does not pass."""
    env = os.environ | {
        "PYTHONPATH": f"{root}{os.pathsep}{Path(malformed.__file__).parent}",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", WATCHED], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines() == [
        "crash -11", "stall -14", "MemoryError", "memory 1", "KeyError", "another error 1",
        "AttributeError", "an unsound read 1", "refused", "refused 0",
    ], done.stderr  # fmt: skip


# --- malicious ones ---


class Canary:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def npy_bytes(canary):
    out = io.BytesIO()
    np.save(out, np.array([Canary(canary)] * 4, dtype=object), allow_pickle=True)
    return out.getvalue()


def hostile(folder, canary):
    """(what it is, path) of sets that would run code or read another file."""
    secret = folder / "secret.hdf5"
    with h5py.File(secret, "w") as file:
        file["x"] = np.full((4, 2, 3), 42.0, np.float32)
    for name in ("omar", "madiff"):
        for victim in ("obs", "acs" if name == "omar" else "actions"):
            part = folder / f"{name}-{victim}" / ("seed_0_data" if name == "omar" else "")
            part.mkdir(parents=True)
            kinds = ("obs", "acs", "rews", "next_obs", "dones") if name == "omar" else (
                "obs", "actions", "rewards", "discounts", "path_lengths")  # fmt: skip
            for kind in kinds:
                file = part / (f"{kind}_0.npy" if name == "omar" else f"{kind}.npy")
                np.save(file, np.zeros((4, 2) if name == "omar" else (4, 2, 3)))
                if kind == victim:
                    file.write_bytes(npy_bytes(canary))
            yield f"npy of objects, {name} {victim}", folder / f"{name}-{victim}"
    zipped = folder / "npz" / "seed_0_data"
    zipped.mkdir(parents=True)
    with zipfile.ZipFile(zipped / "obs_0.npy", "w") as archive:
        archive.writestr("../../canary/obs_0.npy", npy_bytes(canary))
    (zipped / "acs_0.npy").write_bytes(pickle.dumps(Canary(canary)))
    yield "npz in the place of npy", folder / "npz"
    for name in ("x.npz", "x.pt", "x.pkl", "x.h5"):
        (folder / name).write_bytes(pickle.dumps(Canary(canary)))
        yield name, folder / name
    for kind in ("external link", "soft link", "external storage", "virtual", "link to a folder"):
        path = folder / f"{kind}.hdf5"
        with h5py.File(path, "w") as file:
            for name, shape in {"s": (4, 2, 3), "a": (4, 2, 3), "r": (4, 1), "d": (4, 1)}.items():
                file[name] = np.zeros(shape, np.float32)
            if kind == "external link":
                file["o"] = h5py.ExternalLink(str(secret), "/x")
            elif kind == "soft link":
                file["o"] = h5py.SoftLink("/s")
            elif kind == "external storage":
                file.create_dataset(
                    "o", (4, 2, 3), "f4", external=[(str(secret), 0, h5py.h5f.UNLIMITED)]
                )
            elif kind == "virtual":
                layout = h5py.VirtualLayout((4, 2, 3), "f4")
                layout[...] = h5py.VirtualSource(str(secret), "x", (4, 2, 3))
                file.create_virtual_dataset("o", layout)
            else:
                file["o"] = h5py.ExternalLink("/etc", "/x")
        yield kind, path


def crc32c(raw):
    """The checksum of TensorStore's manifests."""
    total = 0xFFFFFFFF
    for byte in raw:
        total ^= byte
        for _ in range(8):
            total = (total >> 1) ^ (0x82F63B78 if total & 1 else 0)
    return (total ^ 0xFFFFFFFF).to_bytes(4, "little")


def test_a_vault_cannot_name_a_file_outside_of_its_folder(tmp_path):
    """A manifest with a right checksum whose data file is `../outside/...`: TensorStore takes no key with dots."""
    import tensorstore

    for climbs in (False, True):
        vault, outside = tmp_path / str(climbs) / "vault", tmp_path / str(climbs) / "outside"
        vault.mkdir(parents=True), outside.mkdir()
        base = {"driver": "file", "path": f"{vault}/"}
        config = {"compression": None, "max_inline_value_bytes": 0}
        store = tensorstore.KvStore.open(
            {"driver": "ocdbt", "base": base, "config": config}
        ).result()
        store.write("x/.zarray", b"{}").result()  # one write makes one data file
        (vault / "metadata.json").write_text('{"version": 1.2}')
        manifest, folder = vault / "manifest.ocdbt", (vault / "d" if not climbs else outside)
        if climbs:
            (file,) = (vault / "d").iterdir()
            name, raw = f"d/{file.name}".encode(), manifest.read_bytes()
            other = f"../outside/{file.name}".encode()[: len(name)]
            assert raw.count(name) == 1
            os.replace(file, vault / other.decode())
            raw = raw.replace(name, other)
            manifest.write_bytes(raw[:-4] + crc32c(raw[:-4]))
        assert list(folder.iterdir())
        with pytest.raises(JaxomarlError, match="Invalid key" if climbs else "vault_index"):
            formats.read(vault)


def test_malicious_files_run_nothing_and_read_nothing_else(tmp_path):
    canary = tmp_path / "canary"
    seen = []
    for what, path in hostile(tmp_path, canary):
        with pytest.raises(JaxomarlError):
            raise AssertionError(f"{what} was read: {formats.read(path)}")
        seen.append(what)
    with pytest.raises(JaxomarlError):
        torchfile.load(tmp_path / "x.pt")
    assert not canary.exists() and len(seen) == 14
    np.load(
        io.BytesIO(npy_bytes(canary)), allow_pickle=True
    )  # the corpus does bite where it is let
    assert canary.exists()
