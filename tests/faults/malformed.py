"""Damaged sets of every format, read one after another in a process of its own: `python malformed.py FOLDER SEED N`.

Prints a line before and a line after each, so that whoever started it sees which one killed it.
"""

import json
import random
import re
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np

from jaxomarl.base import JaxomarlError

SECONDS, BYTES = 10, 1 << 30
SHARES = {"omar": 6, "madiff": 4, "omiga": 6, "pymarl": 4, "minari": 3, "vault": 2}
ROOT = Path(__file__).parents[1]


def make(folder):
    """A small good set of each format."""
    sys.path.insert(0, str(ROOT / "data"))
    import foreign

    r = foreign.rows([4, 3, 4], obs_dims=(3, 3), act_dims=(2, 2), died=[1], shared=True)
    whole = r._replace(action=[np.random.default_rng(0).integers(0, 3, (11, 1)) for _ in range(2)])
    foreign.omar(folder / "omar", r, flags="ended", states=True)
    foreign.madiff(folder / "madiff", r)
    foreign.omiga(folder / "omiga.hdf5", r)
    foreign.pymarl(folder / "pymarl.h5", whole, 3)
    foreign.vault(folder / "some.vlt" / "vault", foreign.leaves(r))
    from jaxomarl.data import formats

    formats.write(folder / "minari", formats.read(folder / "omar"), "minari")


def home(folder, name):
    """Where `make` puts a format's set."""
    return {
        "omiga": folder / "omiga.hdf5",
        "pymarl": folder / "pymarl.h5",
        "vault": folder / "some.vlt/vault",
    }.get(name, folder / name)


def damage(path, rng):
    """Damage one file of a set; returns what was done."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    if not files:
        return "nothing left"
    file = rng.choice(files)
    raw = bytearray(file.read_bytes())
    kind = rng.choice(
        ["flip", "flip", "flip", "cut", "fill", "grow", "digits", "digits", "swap", "gone"]
    )
    if not raw:
        kind = "gone"
    if kind == "flip":
        reach = rng.choice([len(raw), min(len(raw), 256), min(len(raw), 2048)])
        for _ in range(rng.choice([1, 1, 2, 8])):
            raw[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del raw[rng.randrange(len(raw)) :]
    elif kind == "fill":
        at = rng.randrange(len(raw))
        wide = rng.choice([1, 4, 8, 64])
        raw[at : at + wide] = bytes([rng.choice([0, 255, 127, 128])]) * min(wide, len(raw) - at)
    elif kind == "grow":
        raw += rng.randbytes(rng.choice([1, 8, 4096]))
    elif kind == "digits":  # headers and JSON: another number in the place of one
        found = list(re.finditer(rb"\d+", bytes(raw[:4096])))
        if found:
            one = rng.choice(found)
            new = rng.choice(
                [b"0", b"-1", b"9" * len(one[0]), b"99999999999999999999", b"1e9", b"True", b"[]"]
            )
            raw[one.start() : one.end()] = new
    elif kind == "swap":
        raw = bytearray(rng.choice(files).read_bytes())
    if kind == "gone":
        file.unlink()
    else:
        file.write_bytes(raw)
    return f"{kind} {file.name}"


def sound(raw):
    """A read that no error ended has all that `Raw` promises."""
    rows, n = len(raw.step), raw.agents
    assert rows and n == len(raw.action)
    assert all(
        x.dtype == np.float32 and x.ndim == 2 and len(x) == rows for x in (*raw.obs, *raw.action)
    )
    assert raw.reward.shape == (rows, n) and raw.reward.dtype == np.float32
    for name in ("done", "step", "left", "known", "behaviour"):
        assert getattr(raw, name).shape == (rows,), name
    assert raw.state is None or (raw.state.ndim == 2 and len(raw.state) == rows)
    assert raw.available is None or raw.available.shape == (rows, n, raw.action[0].shape[1])
    first = np.flatnonzero(raw.step == 0)
    np.testing.assert_array_equal(np.flatnonzero(raw.left == 0), [*(first[1:] - 1), rows - 1])
    assert (np.diff(raw.step)[np.diff(raw.step) != 1] < 0).all()
    json.dumps([raw.evidence, raw.repairs, raw.dialects, raw.quality])


def limit():
    """From here on the process may have BYTES more than it has."""
    now = int(re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10
    resource.setrlimit(resource.RLIMIT_AS, (now + BYTES, now + BYTES))


def watched(read):
    """How a read ends, "read" or "refused"; anything else ends the process, as does a stall."""
    signal.alarm(SECONDS)  # its default is to end the process
    try:
        sound(read())
        end = "read"
    except JaxomarlError as error:
        assert len(str(error)) < 4000, str(error)[:200]
        end = "refused"
    signal.alarm(0)
    return end


def main(folder, seed, count, *only):
    """Damage and read `count` sets (of the formats `only`), each within SECONDS and BYTES."""
    from jaxomarl.data import formats

    folder, rng = Path(folder), random.Random(seed)
    for name in SHARES:
        sound(
            formats.read(home(folder, name))
        )  # and everything that is loaded lazily is there before the limit
    limit()
    names = [
        name for name, share in SHARES.items() for _ in range(share) if not only or name in only
    ]
    for k in range(count):
        name = names[k % len(names)]
        good, path = home(folder, name), folder / f"damaged-{seed}"
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        shutil.copytree(good, path) if good.is_dir() else shutil.copy(good, path)
        print(
            k,
            name,
            *(damage(path, rng) for _ in range(rng.choice([1, 1, 1, 3]))),
            sep=", ",
            flush=True,
        )
        read = formats.FORMATS[name].read if rng.random() < 0.5 else formats.read
        began = time.perf_counter()
        print(
            watched(lambda read=read, path=path: read(path)),
            f"{time.perf_counter() - began:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
