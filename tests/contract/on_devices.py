"""Started by conftest.py with eight devices: trains, notes how states are laid out, and writes the numbers.

With the name of a system, its sweep alone.
"""

import json
import sys
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pair
from checks import named
from cloning import CLONING
from jax.sharding import NamedSharding, PartitionSpec
from trial import LIBRARIES, Trial

from jaxomarl.algorithms import REGISTRY
from jaxomarl.training import final, runner, sharding
from jaxomarl.training.library import StageCache, TrainedStage, gather

# Under seed 0 one weight's gradient is nothing but rounding, of which Adam makes a step; these have none.
SWEPT = (4, 5, 6, 7)
# more runs than devices, so that the last ones are padding, and fewer; the sweep has as many
COUNTS = (11, 3)
DIVIDED = {3: 2, 1: 8}
"""Wide runs -> the devices that share each one's batch, of eight."""
MORE = "more"
"""In the place of a system's name: the second of each, which `make test-long` has."""


def copies(trial: Trial, runs: int) -> list:
    """Configs of more runs than a trial has."""
    return [trial.cfgs[r % len(trial.cfgs)] for r in range(runs)]


def played(trial: Trial, past: dict) -> dict:
    """Returns of final episodes of all runs."""
    before = {name: state for name, state in past.items() if name != "cloning"}
    runs = len(jax.tree.leaves(past["cloning"])[0])
    seeds = tuple(range(runs))
    settings = (trial.task.env, trial.system.pipeline, trial.spec, copies(trial, runs), seeds)
    return final.roll_out(*settings, past["cloning"], before, 3)


def doubled(x: jax.Array) -> jax.Array:
    """Twice x, by the host, as robots are simulated in C."""
    by_host = lambda x: np.asarray(2 * x)
    return jax.pure_callback(by_host, jax.typeof(x), x, vmap_method="broadcast_all")


def gathered() -> jax.Array:
    """Runs that lie over two devices and on one each, brought together in another order.

    As when a sweep over two devices is extended by one seed on one device.
    """
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    two = NamedSharding(sharding.mesh(2), PartitionSpec("runs"))
    one, other = jax.devices()[:2]
    parts = ((("a", "b"), x[:2], two), (("c",), x[2:3], one), (("d",), x[3:], other))
    batches = [
        TrainedStage(rows, {"w": jax.device_put(w, place)}, {}, {}, {}, {})
        for rows, w, place in parts
    ]
    return jax.jit(lambda w: w * 1)(gather(("d", "a", "c"), batches).state["w"])


def sweep(out: Path, name: str) -> dict:
    """A sweep of eight runs, the stages before the last one trained for four; what it left."""
    trial = Trial(name, REGISTRY.get(name, pair.WEIGHTED))
    found = trial.sweep(LIBRARIES["base"], SWEPT)
    for stage in trial.stages:
        np.savez(out / f"{name}-{stage.name}.npz", **named(found.past[stage.name]))
    return found.past


def clones(out: Path, counts: tuple, divided: tuple) -> None:
    """Cloning with so many runs, and with so many wide ones, whose batches are divided as on cards."""
    cloning = Trial("cloning", CLONING)
    for runs in counts:
        found = cloning.run(copies(cloning, runs), tuple(range(runs)), StageCache(), env=False)
        np.savez(out / f"cloning-{runs}.npz", **named(found.past["cloning"]))
        np.savez(out / f"played-{runs}.npz", **played(cloning, found.past))
    rule = sharding.shares
    as_card = lambda platform, *sizes: rule("gpu", *sizes)
    with mock.patch.multiple(sharding, WIDE=0, shares=as_card):
        for runs in divided:
            found = cloning.run(copies(cloning, runs), tuple(range(runs)), StageCache(), env=False)
            np.savez(out / f"divided-{runs}.npz", **named(found.past["cloning"]))


def small(out: Path) -> None:
    """The small systems: most of what several devices change."""
    clones(out, COUNTS[:1], tuple(DIVIDED)[:1])
    past = sweep(out, "weighted")
    # a stage from a file lies on one device
    past = {**past, "critic": jax.device_put(past["critic"], jax.devices()[0])}
    jax.jit(lambda past: jax.tree.map(jax.numpy.sum, past))(sharding.united(past))
    lifted = sharding.sharded(sharding.over_runs(doubled, "vmap", 0), sharding.mesh(8), 0)
    np.savez(out / "by-host.npz", x=jax.jit(lifted)(np.arange(8.0, dtype=np.float32)))
    np.savez(out / "gathered.npz", w=gathered())


def main(out: Path, *only: str) -> None:
    layouts = []
    original = runner.Program.compile

    def compile_and_look(self, f, *args, **options):
        compiled = original(self, f, *args, **options)

        def call(*given):
            state = (done := compiled(*given))[0]
            over = NamedSharding(self.devices, PartitionSpec("runs"))
            kept = all(x.sharding.is_equivalent_to(over, x.ndim) for x in jax.tree.leaves(state))
            layouts.append([self.stage.name, *self.devices.devices.shape, kept])
            return done

        return call if f.__name__ == "advance" else compiled

    with mock.patch.object(runner.Program, "compile", compile_and_look):
        if not only:
            small(out)
        for name in only:
            if name == MORE:
                clones(out, COUNTS[1:], tuple(DIVIDED)[1:])
            else:
                sweep(out, name)
    (out / "layouts.json").write_text(json.dumps(layouts))


if __name__ == "__main__":
    assert jax.device_count() == 8
    main(Path(sys.argv[1]), *sys.argv[2:])
