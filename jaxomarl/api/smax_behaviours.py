"""The training of SMAX's behaviours: MAPPO over several seeds, with snapshots kept.

    python -m experiments.behaviours smax/3m

Kinds are told by the share of battles that a team wins as it collects data, with its noise:

    good      each seed's best snapshot, no warmer than it can be; at least 0.75, on hard maps 0.4
    medium    0.25 to 0.5
    poor      at most 0.05, with a mean return of 0.3 to 0.7

Where no snapshot of a seed lies in a band, a better one gets more noise, and then a higher
temperature. All are chosen by one set of episodes and measured on another.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxomarl.algorithms import ppo
from jaxomarl.api.snapshots import layers, write_references
from jaxomarl.base import Environment, refuse
from jaxomarl.data.files import write_arrays
from jaxomarl.data.stats import identity
from jaxomarl.envs.catalog import make as make_task
from jaxomarl.envs.recipes import Behaviour, roll_out_rows
from jaxomarl.envs.rollout import team_score
from jaxomarl.envs.smax.learned import drawing
from jaxomarl.envs.stored import Params
from jaxomarl.training.runner import Job, Progress, run

WON = 1.99
"""A return above it is a win: 1 for all the foes' health, and 1 for the win."""
NOISE = 0.05
"""Share of uniform legal actions in the data, where a band is met by a snapshot as it is."""
NOISES = tuple(0.1 + 0.05 * k for k in range(9))
TEMPERATURES = (1.5, 2.0, 3.0)
SHARPER = (1.0, 0.5, 0.1)
"""Temperatures of a good team, of which the first that wins enough is taken."""
TRIED = 6
"""Snapshots of a seed that are measured for a band."""
CHOOSING, MEASURING = 3, 5
"""Seeds of the episodes by which snapshots are chosen, and measured."""


class Band(NamedTuple):
    """What a kind's teams win, and the return that they have."""

    wins: tuple[float, float]
    returns: tuple[float, float] = (0.0, 2.0)

    def holds(self, played: "Played") -> bool:
        """Whether a team lies in the band."""
        wins = self.wins[0] <= played.win <= self.wins[1]
        return wins and self.returns[0] <= played.score <= self.returns[1]

    def miss(self, win: float, score: float) -> float:
        """How far a team is from the middle of the band."""
        middle = lambda ends: 0.5 * (ends[0] + ends[1])
        return abs(win - middle(self.wins)) + abs(score - middle(self.returns))


BANDS = {"medium": Band((0.25, 0.5)), "poor": Band((0.0, 0.05), (0.3, 0.7))}


class Plan(NamedTuple):
    """The training of a map's teams."""

    steps: int = 8000
    """MAPPO's updates; 16 of them take 4,096 steps of the environments."""
    seeds: int = 5
    teams: int = 3
    """Seeds that are kept: those that win most."""
    good: float = 0.75
    """Least share of battles that a good team wins."""
    episodes: int = 64
    """Battles of each evaluation in training."""
    measured: int = 256
    """Battles behind each number that is stored."""


PLANS = {
    "3m": Plan(),
    "2s3z": Plan(steps=2400),
    "smacv2_5_units": Plan(steps=4800, seeds=3, good=0.65),
    "5m_vs_6m": Plan(steps=16_000, seeds=3, good=0.4),
}


class Snapshot(NamedTuple):
    """A team as it was at one evaluation of the training."""

    params: Params
    update: int
    win: float
    score: float


class Played(NamedTuple):
    """What a team does in the battles of a data collection."""

    win: float
    score: float
    """Mean return."""
    score_std: float
    length: float


class Team(NamedTuple):
    """A snapshot with the noise and the temperature by which it collects data."""

    params: Params
    update: int
    noise: float = NOISE
    temperature: float = 1.0

    def stored(self) -> Params:
        """The parameters as `envs/smax/learned.py` takes them, rounded as they are stored."""
        numbers = {"noise": np.array([self.noise]), "temperature": np.array([self.temperature])}
        rounded = {
            name: np.asarray(x, np.float16) for name, x in {**self.params, **numbers}.items()
        }
        return {name: x.astype(np.float32) for name, x in rounded.items()}


def store(map_name: str, out: Path, plan: Plan) -> None:
    """Train the seeds, choose teams, store them as float16, and write what was measured.

    The snapshots of a seed are kept in `out`, so that another call chooses without training. Raises
    JaxomarlError where no team lies in a band.
    """
    env = make_task(f"smax/{map_name}").env
    of_seeds: list[list[Snapshot]] = []
    for seed in range(plan.seeds):
        file = out / "snapshots" / f"{map_name}-{plan.steps}-{seed}.safetensors"
        if not file.exists():
            save(file, trained(map_name, env, plan, seed))
        of_seeds.append(saved(file))
    of_seeds.sort(key=lambda snapshots: -max(s.win for s in snapshots))
    teams = choose(env, plan, of_seeds[: plan.teams])
    arrays = {
        f"{kind}/{k}/{leaf}": x.astype(np.float16)
        for kind, many in teams.items()
        for k, team in enumerate(many)
        for leaf, x in team.stored().items()
    }
    out.mkdir(parents=True, exist_ok=True)
    write_arrays(out / f"{map_name}.safetensors", arrays)
    facts = {kind: [measured(env, plan, team) for team in many] for kind, many in teams.items()}
    about = {"dialect": env.spec.dialect, "updates": plan.steps}
    write_references(out / "references.json", map_name, {**about, **facts})


def trained(map_name: str, env: Environment, plan: Plan, seed: int) -> list[Snapshot]:
    """The snapshots of one seed, in order: one at a time is fastest on a few cores."""
    # twenty evaluations
    cfg = ppo.Config(policy_steps=plan.steps, every=max(1, plan.steps // 16 // 20))
    began = time.perf_counter()
    snapshots: list[Snapshot] = []

    def keep(progress: Progress) -> None:
        if not progress.evaluations:
            return
        actor = jax.tree.map(lambda x: np.asarray(x[0]), progress.state.net.params["actor"])
        win = float(progress.evaluations["win"].mean())
        score = float(progress.evaluations["return"].mean())
        snapshots.append(Snapshot(layers(actor), progress.step, win, score))
        seconds = time.perf_counter() - began
        said = f"wins {win:.2f}, return {score:.2f}"
        print(f"{map_name} seed {seed} {progress.step} {seconds:.0f} s {said}", flush=True)

    job = Job(
        system=ppo.PPO,
        spec=env.spec,
        cfgs=[cfg],
        seeds=[seed],
        data=None,
        stats=identity(env.spec),
        env=env,
        episodes=plan.episodes,
        report=keep,
    )
    run(job)
    return snapshots


def save(path: Path, snapshots: Sequence[Snapshot]) -> None:
    """Write the snapshots of a seed."""
    arrays = {f"{s.update}/{name}": x for s in snapshots for name, x in s.params.items()}
    arrays |= {f"{s.update}/played": np.array([s.win, s.score]) for s in snapshots}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(path, {name: np.ascontiguousarray(x) for name, x in arrays.items()})


def saved(path: Path) -> list[Snapshot]:
    """The snapshots that `save` wrote, in order."""
    from safetensors.numpy import load

    found: dict[int, Params] = {}
    for name, x in load(path.read_bytes()).items():
        update, _, leaf = name.partition("/")
        found.setdefault(int(update), {})[leaf] = x
    return [
        Snapshot(params, update, *map(float, params.pop("played")))
        for update, params in sorted(found.items())
    ]


# --- the choice ---


def choose(
    env: Environment, plan: Plan, of_seeds: Sequence[list[Snapshot]]
) -> dict[str, list[Team]]:
    """Each kind's teams."""
    best = [max(snapshots, key=lambda s: (s.win, s.score)) for snapshots in of_seeds]
    teams = {"good": [good_team(env, plan, snapshots) for snapshots in of_seeds]}
    for kind, band in BANDS.items():
        teams[kind] = [
            in_band(env, plan, kind, band, snapshots, last)
            for snapshots, last in zip(of_seeds, best, strict=True)
        ]
    return teams


def good_team(env: Environment, plan: Plan, snapshots: list[Snapshot]) -> Team:
    """The best of a seed's likely snapshots, as warm as one wins enough.

    JaxomarlError where none does.
    """
    likely = sorted(snapshots, key=lambda s: (s.win, s.score))[-TRIED:]
    most = 0.0
    for temperature in SHARPER:
        teams = [Team(s.params, s.update, temperature=temperature) for s in likely]
        wins = [played(env, team, plan.measured, CHOOSING).win for team in teams]
        most = max(wins)
        if most >= plan.good:
            return teams[wins.index(most)]
    way = "Train it longer with --steps."
    raise refuse("good", f"a team that wins {plan.good:g}", f"{most:.2f}", way)


def in_band(
    env: Environment, plan: Plan, kind: str, band: Band, snapshots: list[Snapshot], best: Snapshot
) -> Team:
    """A team of one seed that lies in a band; JaxomarlError where there is none."""
    for team in candidates(band, snapshots, best):
        if band.holds(played(env, team, plan.measured, CHOOSING)):
            return team
    wanted = f"a team that wins {band.wins[0]:g} to {band.wins[1]:g}"
    raise refuse(kind, wanted, "none among the snapshots", "Train it longer with --steps.")


def candidates(band: Band, snapshots: list[Snapshot], best: Snapshot) -> Iterator[Team]:
    """The snapshots nearest to a band as they are, then better ones that are disturbed."""
    before = [s for s in snapshots if s.update <= best.update]
    likely = sorted(before, key=lambda s: band.miss(s.win, s.score))[:TRIED]
    for snapshot in likely:
        yield Team(snapshot.params, snapshot.update)
    better = sorted((s for s in before if s.win > band.wins[1]), key=lambda s: s.win)[:2]
    for snapshot in better or [best]:
        team = Team(snapshot.params, snapshot.update)
        for noise in NOISES:
            yield team._replace(noise=noise)
        for temperature in TEMPERATURES:
            yield team._replace(temperature=temperature)


def played(env: Environment, team: Team, episodes: int, seed: int) -> Played:
    """Battles of a team as it collects data."""
    behaviour = Behaviour(drawing(env.spec), team.stored())
    returns: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    count = 0
    rows = episodes
    while count < episodes:
        # an episode has at least one row, so some calls bring fewer than are wanted
        key = jax.random.fold_in(jax.random.key(seed), count)
        for rollouts, steps in roll_out_rows(env, behaviour, key, rows):
            alive = np.arange(env.spec.horizon) < np.asarray(steps)[:, None]
            scores = np.asarray(team_score(env.spec, jnp.asarray(rollouts.reward)))
            returns.append((scores * alive).sum(axis=1))
            lengths.append(np.asarray(steps))
            count += len(steps)
        rows = 16 * episodes
    score = np.concatenate(returns)[:episodes]
    length = np.concatenate(lengths)[:episodes]
    won = float((score > WON).mean())
    return Played(won, float(score.mean()), float(score.std()), float(length.mean()))


def measured(env: Environment, plan: Plan, team: Team) -> dict[str, Any]:
    """What is stored of a team: its snapshot, its noise, and battles that chose nothing."""
    found = played(env, team, plan.measured, MEASURING)
    facts = {"update": team.update, "noise": team.noise, "temperature": team.temperature}
    return {**facts, **found._asdict(), "episodes": plan.measured}
