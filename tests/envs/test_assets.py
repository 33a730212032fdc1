"""Shipped files are those whose play was measured: what is changed is measured anew by `make test-long`."""

import hashlib
from pathlib import Path

import jaxomarl

ASSETS = Path(jaxomarl.__file__).parent / "assets"
MEASURED = {
    "mamujoco/2ant.safetensors": "fa911d7b79a5c46d",
    "mamujoco/2halfcheetah.safetensors": "a517b253c1906300",
    "mamujoco/3hopper.safetensors": "baec6f74b77bd6ab",
    "mamujoco/4ant.safetensors": "928d3f287564300d",
    "mamujoco/6halfcheetah.safetensors": "55d29ed3d64b5e7d",
    "mpe/six.safetensors": "e433b61ba9e769b1",
    "mpe/spread.safetensors": "307ffc408984990a",
    "mpe/tag-prey.safetensors": "4d7f77bf20a28ac2",
    "mpe/tag.safetensors": "d120f31fec626f1b",
    "mpe/world-prey.safetensors": "1dbeae677a58c54b",
    "mpe/world.safetensors": "129023f44d65f987",
    "smax/2s3z.safetensors": "d0dbd767ecc8dda0",
    "smax/3m.safetensors": "b30318dc9ce6df01",
    "smax/smacv2_5_units.safetensors": "8cddd991a033a1be",
}
"""File -> the first 16 digits of its sha256 when tests/envs and tests/data last measured how it plays."""


def test_the_shipped_files_are_those_that_were_measured():
    files = ASSETS.rglob("*.safetensors")
    found = {
        p.relative_to(ASSETS).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()[:16]
        for p in files
    }
    assert found == MEASURED
