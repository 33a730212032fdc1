"""Every contract on one page.

Axes: `R` runs, `B` batch, `H` window, `N` agents, `O` observation, `A` action, `S` state,
`E` ensemble, `M` rows.

An algorithm is a record of pure functions. A system is a pipeline of stages. All state is arrays.
"""

import dataclasses
import difflib
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

State = Any
"""A pytree of arrays: the state of an algorithm or of an environment."""
Memory = Any
"""What the policy of one environment remembers within an episode; `()` for most policies."""
Metrics = dict[str, Float[Array, ""]]
"""Numbers that one update reports, by name."""
Past = dict[str, State]
"""The states of finished stages by name, and past["stats"]; it is only read."""


class JaxomarlError(ValueError):
    """An error that the user can fix.

    It names the field, what was expected, what was given, and the way out.
    """

    field: str = ""
    """The refused flag, setting or file: "--cfg.beta" at a command line, "beta" from Python."""


SHOWN = 800
"""Most characters of a message's field, of what it expected, and of what was found."""


def refuse(field: str, expected: str, found: object, way_out: str) -> JaxomarlError:
    """Build an error in the one form that all our messages have; the caller raises it."""
    where, wanted, given = map(shortened, (field, expected, repr(found)))
    error = JaxomarlError(f"{where}: expected {wanted}, found {given}. {way_out}")
    error.field = field
    return error


def shortened(text: str) -> str:
    """The text, or its first and last characters where it has more than SHOWN."""
    if len(text) <= SHOWN:
        return text
    half = SHOWN // 2
    return f"{text[:half]} ... {text[-half:]}"


def check_count(field: str, count: Any, most: int) -> None:
    """Raise JaxomarlError unless `count` is a whole number from 0 to `most`; 0 means a default."""
    whole = isinstance(count, numbers.Integral) and not isinstance(count, bool)
    if not whole or not 0 <= int(count) <= most:
        expected = f"a whole number from 1 to {most:,}"
        raise refuse(field, expected, count, "Leave it out for its default.")


def nearest(name: str, known: Iterable[str], cutoff: float = 0.4) -> str:
    """The way out for an unknown name: it suggests the most similar names, if there are any."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=cutoff)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return "Name one of them."


# --- the task ---

ENDINGS = ("never", "may", "always")
"""The values that `Spec.terminates` may have."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """Static facts of a task. They are hashable, and programs close over them.

    Arrays are padded to the widest agent.
    """

    obs_dims: tuple[int, ...]
    """True observation width of each agent."""
    act_dims: tuple[int, ...]
    """Continuous: action columns of each agent, in [-1, 1]. Discrete: its number of actions."""
    state_dim: int
    """Width of the state that a centralised critic may see."""
    horizon: int
    """Steps after which an episode is cut; a cut is a time-out, not a termination."""
    discrete: bool = False
    """Whether actions are discrete; then they are one-hot rows of [N, A] inside all programs."""
    team: str = "mean"
    """How the team's reward follows from the agents' rewards: "mean", or "first" agent's."""
    dialect: str = ""
    """The version of the rules: "games-v1", "mpe-omar", ...; data and environment must agree."""
    terminates: str = "may"
    """Whether the rules end episodes: "never" (each end is a time-out), "may", or "always"."""
    earliest: int = 1
    """Fewest steps after which an episode can terminate; unused where it never terminates."""

    def __post_init__(self) -> None:
        if self.terminates not in ENDINGS:
            expected = " or ".join(f'"{ending}"' for ending in ENDINGS)
            way_out = "Say whether the rules end episodes."
            raise refuse("Spec.terminates", expected, self.terminates, way_out)
        if not 1 <= self.earliest <= max(self.horizon, 1):
            expected = f"1 to {self.horizon} steps, the horizon"
            raise refuse("Spec.earliest", expected, self.earliest, "1 where nothing is known.")
        if self.team not in ("mean", "first"):
            way_out = "Say how the team's reward is made."
            raise refuse("Spec.team", '"mean" or "first"', self.team, way_out)
        if len(self.obs_dims) != len(self.act_dims):
            expected = f"{len(self.obs_dims)} widths"
            raise refuse("Spec.act_dims", expected, self.act_dims, "One per agent.")

    @property
    def agents(self) -> int:
        """Number of agents N."""
        return len(self.act_dims)

    @property
    def obs_width(self) -> int:
        """Padded observation width O."""
        return max(self.obs_dims)

    @property
    def act_width(self) -> int:
        """Padded action width A."""
        return max(self.act_dims)

    @cached_property
    def obs_mask(self) -> np.ndarray:
        """[N, O], 1.0 on real observation columns."""
        return _mask(self.obs_dims)

    @cached_property
    def act_mask(self) -> np.ndarray:
        """[N, A], 1.0 on real action columns."""
        return _mask(self.act_dims)


def team_reward(team: str, reward: Any) -> Any:
    """The team's reward [...] from the agents' [..., N], as `Spec.team` says.

    It takes arrays of NumPy and of JAX.
    """
    if team == "first":
        return reward[..., 0]
    return reward.mean(axis=-1)


def _mask(widths: tuple[int, ...]) -> np.ndarray:
    columns = np.arange(max(widths))
    return (columns < np.array(widths)[:, None]).astype(np.float32)


class Observation(NamedTuple):
    """All that an acting policy may see."""

    obs: Float[Array, "N O"]
    available: Bool[Array, "N A"]
    reward: Float[Array, " N"] | None = None
    """The reward of each agent at the step before; None where nobody reports it."""


class TimeStep(NamedTuple):
    """What an environment returns. Padded columns are exactly zero."""

    obs: Float[Array, "N O"]
    state: Float[Array, " S"]
    """What a centralised critic may see."""
    reward: Float[Array, " N"]
    done: Float[Array, ""]
    """1.0 on termination, 0.0 on time-out."""
    alive: Float[Array, " N"]
    available: Bool[Array, "N A"]
    info: dict[str, Float[Array, ""]]
    """Further numbers under keys that are fixed for each task: coordinated, collisions, win, ..."""


class Environment(NamedTuple):
    """The rules of a task. They are pure in key and state, and never reset themselves."""

    spec: Spec
    reset: Callable[[Key[Array, ""]], tuple[State, TimeStep]]
    step: Callable[[Key[Array, ""], State, Float[Array, "N A"]], tuple[State, TimeStep]]
    render: Callable[[State], np.ndarray] | None = None
    """It draws one frame [height, width, 3] in uint8."""
    legend: tuple[tuple[str, tuple[int, int, int]], ...] = ()
    """Words for the colours of a frame: (word, red, green and blue of 0 to 255)."""
    render_trails: Callable[[Sequence[State]], np.ndarray] | None = None
    """As `render`, of the last of several states, with the paths of bodies that led there; None
    where the task is no plane."""


class Episodes(NamedTuple):
    """What a recipe or an importer returns: raw rows of complete episodes, back to back.

    Each episode ends with its successor row.
    """

    obs: Float[Array, "M N O"]
    state: Float[Array, "M S"]
    action: Float[Array, "M N A"]
    """Zeros in the last row of an episode."""
    reward: Float[Array, "M N"]
    done: Float[Array, " M"]
    """1.0 where the transition that starts here terminates."""
    step: Int[Array, " M"]
    """Position in the episode."""
    left: Int[Array, " M"]
    """Number of rows after this one in the episode; 0 marks the successor row."""
    behaviour: Int[Array, " M"]
    """Number of the behaviour that produced the row; zeros where unknown."""
    available: Bool[Array, "M N A"] | None = None
    """Legal actions of each row, the successor row's too; None where every action always is."""
    alive: Float[Array, "M N"] | None = None
    """1.0 where an agent still acts; None where all agents always do."""


Recipe = Callable[[Key[Array, ""], int], Episodes]
"""(key, rows) -> episodes with that many transitions, rounded up to complete episodes."""


class Behaviours(NamedTuple):
    """The K joint behaviours that produced a data set.

    Behaviour k acts by N(m_k(o), std^2 I), clipped to [-1, 1].
    """

    params: dict[str, Any]
    """Perceptrons as `envs.stored.play` takes them: they output the means, and lead with [K, N]."""
    numbers: Int[np.ndarray, " K"]
    """Their numbers in `Dataset.behaviour`."""
    shares: Float[np.ndarray, " K"]
    """Their shares of the transitions, which sum to 1."""
    std: float
    """Standard deviation of every action column, before the action is clipped to [-1, 1]."""


class Source(NamedTuple):
    """The recipe that generated a data set."""

    task: str
    quality: str


class Scale(NamedTuple):
    """The team returns that a normalised score calls 0 and 100, and where they come from."""

    random: float
    expert: float
    source: str
    medium: float | None = None
    """The return of the medium data, for orientation."""

    def normalise(self, score: Any) -> Any:
        """100 (S - S_random) / (S_expert - S_random)."""
        return 100.0 * (score - self.random) / (self.expert - self.random)


class Fields(NamedTuple):
    """Names of the columns of each agent's observation and action."""

    obs: tuple[tuple[str, ...], ...]
    action: tuple[tuple[str, ...], ...]


class Task(NamedTuple):
    """A named environment, its recipes for data, and the answer where it is known."""

    name: str
    env: Environment
    recipes: Mapping[str, Recipe]
    """Recipes by the name of the data's quality."""
    quality: str
    """The quality that is taken where none is named."""
    optimum: float | None = None
    """Largest attainable team return of an episode, where it is known."""
    about: str = ""
    """One line: the rule, and where the optimum lies."""
    episodes: int = 32
    """Episodes of each evaluation while training."""
    rows: int = 100_000
    """Transitions in a generated data set."""
    scale: Scale | None = None
    """The scale of normalised scores, under the environment's dialect."""
    fields: Fields | None = None
    """Names of the columns, where the task has them."""
    behaviours: Mapping[str, Callable[[], Behaviours]] = {}
    """The behaviours that produced each quality's data, where they are known."""
    final_episodes: int = 1024
    """Episodes of the final evaluation."""


# --- the data ---


class Layout(NamedTuple):
    """Widths of the blocks that `Dataset.rows` packs side by side (static)."""

    agents: int
    obs: int
    state: int
    action: int
    team: str = "mean"

    @property
    def blocks(self) -> dict[str, tuple[int, ...]]:
        """Shape of each block of a packed row, in order."""
        n = self.agents
        return {
            "obs": (n, self.obs),
            "state": (self.state,),
            "action": (n, self.action),
            "reward": (n,),
            "done": (),
            "known": (),
            "last": (),
        }

    def unpack(self, rows: Float[Array, "*B W"]) -> dict[str, Array]:
        """Split packed rows into their named blocks."""
        blocks = {}
        start = 0
        for name, shape in self.blocks.items():
            end = start + int(np.prod(shape))
            blocks[name] = rows[..., start:end].reshape(*rows.shape[:-1], *shape)
            start = end
        return blocks


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Dataset:
    """The rows of all episodes in raw units, back to back, successor rows included.

    The float blocks are packed side by side. A transition is then one gather of two neighbours.
    """

    rows: Float[Array, "M W"]
    step: Int[Array, " M"]
    """Position in the episode."""
    left: Int[Array, " M"]
    """Number of rows after this one in the episode; 0 marks the successor row."""
    starts: Int[Array, " M1"]
    """Rows where a transition may start; reweighting repeats entries here, never rows."""
    behaviour: Int[Array, " M"]
    """Number of the behaviour that produced the row; zeros where unknown."""
    extra: dict[str, Array]
    """What `prepare` adds: returns-to-go, alive, available, ..."""
    layout: Layout = dataclasses.field(metadata={"static": True})
    source: Source | None = dataclasses.field(default=None, metadata={"static": True})
    """The recipe; None where the data come from elsewhere."""

    @property
    def obs(self) -> Float[Array, "M N O"]:
        """Observations."""
        return self.layout.unpack(self.rows)["obs"]

    @property
    def state(self) -> Float[Array, "M S"]:
        """States."""
        return self.layout.unpack(self.rows)["state"]

    @property
    def action(self) -> Float[Array, "M N A"]:
        """Actions."""
        return self.layout.unpack(self.rows)["action"]

    @property
    def reward(self) -> Float[Array, "M N"]:
        """Rewards of the agents."""
        return self.layout.unpack(self.rows)["reward"]

    @property
    def done(self) -> Float[Array, " M"]:
        """1.0 where a transition terminates."""
        return self.layout.unpack(self.rows)["done"]

    @property
    def known(self) -> Float[Array, " M"]:
        """0.0 where the successor is a copy, since the file had none."""
        return self.layout.unpack(self.rows)["known"]

    @property
    def last(self) -> Float[Array, " M"]:
        """1.0 on the final transition of an episode, by time-out too."""
        return self.layout.unpack(self.rows)["last"]


class Batch(NamedTuple):
    """Transitions that were sampled from a data set."""

    obs: Float[Array, "B N O"]
    state: Float[Array, "B S"]
    action: Float[Array, "B N A"]
    reward: Float[Array, "B N"]
    team_reward: Float[Array, " B"]
    next_obs: Float[Array, "B N O"]
    next_state: Float[Array, "B S"]
    next_action: Float[Array, "B N A"]
    """Zeros where no action followed: after the last step of an episode, by time-out too."""
    done: Float[Array, " B"]
    last: Float[Array, " B"]
    known: Float[Array, " B"]
    alive: Float[Array, "B N"]
    available: Float[Array, "B N A"]
    next_available: Float[Array, "B N A"]


class Window(NamedTuple):
    """W = history + horizon + 1 neighbouring rows around sampled starts.

    The present is row `history`. Rows past an end of the episode repeat its outermost row: there
    `valid` is 0.0, and action, reward, done and last are zero. An episode's successor row is
    valid, but nobody acted in it: its action and reward are zero.
    """

    obs: Float[Array, "B W N O"]
    state: Float[Array, "B W S"]
    action: Float[Array, "B W N A"]
    reward: Float[Array, "B W N"]
    team_reward: Float[Array, "B W"]
    done: Float[Array, "B W"]
    last: Float[Array, "B W"]
    alive: Float[Array, "B W N"]
    available: Float[Array, "B W N A"]
    valid: Float[Array, "B W"]
    extra: dict[str, Array]
    """What `prepare` added to the rows, [B, W, ...]."""


# --- the systems ---


class Algorithm(NamedTuple):
    """A named tuple of pure functions, as optax's transformations are.

    The closures of the functions hold networks and optimisers.
    """

    init: Callable[[Key[Array, ""], Past, Dataset], State]
    batch: Callable[[Key[Array, ""], State, Dataset], Any]
    """The only function that samples rows."""
    update: Callable[[Key[Array, ""], State, Past, Any], tuple[State, Metrics]]
    """One gradient step."""
    act: (
        Callable[[Key[Array, ""], State, Past, Memory, Observation], tuple[Array, Memory]] | None
    ) = None
    """It returns an action [N, A] and the next memory; None where the algorithm does not act."""
    memory: Memory = ()
    """The memory of one environment at the start of an episode."""
    centralised: bool = False
    """True only where execution truly needs other agents' observations."""


class Limit(NamedTuple):
    """The share of a stage's numbers above which its training is refused."""

    metric: str
    """The metric that reports the share."""
    most: float
    field: str
    """What is limited, as the refusal names it."""
    of: str
    """What the share is of: the words after "at most 10%"."""
    way_out: str
    """What to do: the words after "To continue,"."""


class Gate(NamedTuple):
    """What a figure of a trained stage has to reach, or may not exceed: then it has learned."""

    figure: str
    """The figure that is judged."""
    at_least: float | None = None
    """What it has to reach; give this or `at_most`."""
    at_most: float | None = None
    """What it may not exceed."""
    times: str = ""
    """A figure that needs no training, which multiplies the number; empty: the number alone."""
    way_out: str = ""
    """What to do where it fails; empty: raise the settings that `Health` names."""
    where: str = ""
    """A figure that is not finite where there is nothing to judge; empty: there always is."""


FIGURE_ROWS = 2048
"""Largest number of held-out transitions on which figures rest."""


class Health(NamedTuple):
    """Figures of a stage on episodes that it was not trained on, and figures without training.

    A figure that a stage reports in training is a metric; these are what its gates compare.
    """

    measure: Callable[[Key[Array, ""], State, Past, Dataset], dict[str, Float[Array, ""]]]
    """(key, the stage's state, earlier stages, held-out episodes) -> figures."""
    gates: tuple[Gate, ...] = ()
    """When the stage counts as learned; none: it is not judged."""
    raise_fields: tuple[str, ...] = ()
    """Settings to raise where it has not learned."""
    at_end: bool = False
    """Whether it is measured once, at the end of the stage, because it is costly."""


class Stage(NamedTuple):
    """An algorithm and how long it is trained.

    The stages of two runs are the same when name, owner, seed, data and the config's `fields`
    agree. Such a stage is trained once. Random streams follow the name alone, so that systems
    which differ in a stage still get the same samples in it.
    """

    name: str
    algorithm: Algorithm
    steps: int
    chunk: int
    """Updates per scan; `refresh` runs before each scan."""
    every: int = 1
    """Chunks between two reports, evaluations and checkpoints."""
    fields: tuple[str, ...] | None = None
    """Config fields that this stage depends on, steps and chunk among them; None means all."""
    owner: str = ""
    """The system that alone has this stage; "" where other systems may share it."""
    refresh: Callable[[Key[Array, ""], State, Past, Dataset], State] | None = None
    """A pure function that is compiled with the scan: it adds synthetic or online rows."""
    kept: Callable[[State], State] = lambda state: state
    """What is kept of the state once the stage is finished; a replay is dropped here."""
    episodes: int = 0
    """Episodes of an evaluation, where they are costly; 0 means as many as for all stages."""
    health: Health | None = None
    """What the trained stage is compared with, and when it has learned."""
    limits: tuple[Limit, ...] = ()
    """Limits of its metrics; the run stops above one."""

    @classmethod
    def from_config(
        cls,
        cfg: Any,
        name: str,
        algorithm: Algorithm,
        steps: int,
        fields: tuple[str, ...] | None = None,
        owner: str = "",
        health: Health | None = None,
    ) -> "Stage":
        """A stage whose scans and reports are as long as the settings `chunk` and `every` say."""
        return cls(name, algorithm, steps, cfg.chunk, cfg.every, fields, owner, health=health)


class System(NamedTuple):
    """A row of the registry."""

    Config: type
    check: Callable[[Spec, Any, Dataset | None], None]
    """It raises JaxomarlError with the way out; it runs on the host, with concrete values."""
    prepare: Callable[[Spec, Any, Dataset], Dataset]
    """It adds to the data, once, on the host; it may read static fields only."""
    pipeline: Callable[[Spec, Any, Environment | None], tuple[Stage, ...]]
    """It builds the stages; only online systems get the environment."""
    online: bool = False


def one_stage(
    owner: str,
    learner: Callable[[Spec, Any], Algorithm],
    fields: tuple[str, ...] | None = None,
    health: Callable[[Spec, Any, Algorithm], Health] | None = None,
) -> Callable[[Spec, Any, Environment | None], tuple[Stage, ...]]:
    """The pipeline of a system whose only stage, "policy", trains its learner.

    `health(spec, cfg, algorithm)` says what the trained stage is compared with.
    """

    def pipeline(spec: Spec, cfg: Any, env: Environment | None = None) -> tuple[Stage, ...]:
        final = learner(spec, cfg)
        compared = None
        if health:
            compared = health(spec, cfg, final)
        stage = Stage.from_config(cfg, "policy", final, cfg.policy_steps, fields, owner, compared)
        return (stage,)

    # `show` prints the paper's box of the file that a pipeline belongs to
    pipeline.__module__ = learner.__module__
    return pipeline


Denoise = Callable[[Array, Array], Array]
"""(x_t, t) -> estimate of x_0. All samplers and all guidance take and return this type."""


class Schedule(NamedTuple):
    """x_t = alpha(t) x_0 + sigma(t) eps, for t in [0, 1]."""

    alpha: Callable[[Array], Array]
    sigma: Callable[[Array], Array]
