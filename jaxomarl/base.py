"""Every contract on one page.

Axes: `R` runs, `B` batch, `H` window, `N` agents, `O` observation, `A` action, `S` state, `E` ensemble, `M` rows.
An algorithm is a record of pure functions, a system is a pipeline of stages, and all state is arrays.
"""

import dataclasses
import difflib
import numbers
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

State = Any  # a pytree of arrays, an algorithm's or an environment's
Memory = Any  # what one environment's policy remembers within an episode; `()` for most
Metrics = dict[str, Float[Array, ""]]
Past = dict[str, State]  # finished stages by name, and past["stats"]; read-only


class JaxomarlError(ValueError):
    """An error of the user's making: names the field, what was expected, what was found, and the way out."""

    field: str = ""
    """The flag, setting or file that is refused: "--cfg.beta" at a command line, "beta" from Python."""


def refuse(field: str, expected: str, found: object, way_out: str) -> JaxomarlError:
    """An error in the one form that our messages take; raise it."""
    error = JaxomarlError(f"{field}: expected {expected}, found {found!r}. {way_out}")
    error.field = field
    return error


def check_count(field: str, count: Any, most: int) -> None:
    """Raise JaxomarlError where a count is not a whole number from 0, which stands for a default, to `most`."""
    whole = isinstance(count, numbers.Integral) and not isinstance(count, bool)
    if not whole or not 0 <= int(count) <= most:
        raise refuse(
            field, f"a whole number from 1 to {most:,}", count, "Leave it out for its default."
        )


def nearest(name: str, known: Iterable[str], cutoff: float = 0.4) -> str:
    """The way out for an unknown name: the names that it is most like, or to name one of those listed."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=cutoff)
    return f"Did you mean {' or '.join(near)}?" if near else "Name one of them."


# --- the task ---

ENDINGS = ("never", "may", "always")
"""What `Spec.terminates` may be."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """Static facts of a task: hashable, closed over, never traced. Arrays are padded to the widest agent."""

    obs_dims: tuple[int, ...]
    """True observation width of each agent."""
    act_dims: tuple[int, ...]
    """Continuous: action columns of each agent, in [-1, 1]. Discrete: its number of actions."""
    state_dim: int
    horizon: int
    """Steps after which an episode is cut; a cut is a time-out, not a termination."""
    discrete: bool = False
    """Then actions are one-hot rows of [N, A] everywhere past the adapters."""
    team: str = "mean"
    """How the team's reward and score are made of the agents' rewards: "mean" or "first"."""
    dialect: str = ""
    """Which rules: "games-v1", "mpe-omar", ...; data and environment must agree."""
    terminates: str = "may"
    """Whether the rules end episodes: "never" (each end is a time-out), "may", "always" (none is a time-out)."""
    earliest: int = 1
    """Fewest steps after which an episode can terminate; without a meaning where it never does."""

    def __post_init__(self) -> None:
        if self.terminates not in ENDINGS:
            expected = " or ".join(f'"{x}"' for x in ENDINGS)
            raise refuse(
                "Spec.terminates", expected, self.terminates, "Say whether the rules end episodes."
            )
        if not 1 <= self.earliest <= max(self.horizon, 1):
            expected = f"1 to {self.horizon} steps, the horizon"
            raise refuse("Spec.earliest", expected, self.earliest, "1 where nothing is known.")
        if self.team not in ("mean", "first"):
            raise refuse(
                "Spec.team", '"mean" or "first"', self.team, "Say how the team's reward is made."
            )
        if len(self.obs_dims) != len(self.act_dims):
            raise refuse(
                "Spec.act_dims", f"{len(self.obs_dims)} widths", self.act_dims, "One per agent."
            )

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
    """The team's reward [...] of the agents' [..., N], by `Spec.team`; NumPy's arrays and JAX's."""
    return reward[..., 0] if team == "first" else reward.mean(axis=-1)


def _mask(widths: tuple[int, ...]) -> np.ndarray:
    return (np.arange(max(widths)) < np.array(widths)[:, None]).astype(np.float32)


class Observation(NamedTuple):
    """All that an acting policy may see."""

    obs: Float[Array, "N O"]
    available: Bool[Array, "N A"]
    reward: Float[Array, " N"] | None = (
        None  # what each agent received at the step before; None where nobody says
    )


class TimeStep(NamedTuple):
    """What an environment returns; padded columns are exactly zero."""

    obs: Float[Array, "N O"]
    state: Float[Array, " S"]  # what a centralised critic may see
    reward: Float[Array, " N"]
    done: Float[Array, ""]  # 1.0 on termination, 0.0 on time-out
    alive: Float[Array, " N"]
    available: Bool[Array, "N A"]
    info: dict[str, Float[Array, ""]]  # fixed keys per task: coordinated, collisions, win, ...


class Environment(NamedTuple):
    """A task's rules: pure in key and state, and it never resets itself."""

    spec: Spec
    reset: Callable[[Key[Array, ""]], tuple[State, TimeStep]]
    step: Callable[[Key[Array, ""], State, Float[Array, "N A"]], tuple[State, TimeStep]]
    render: Callable[[State], np.ndarray] | None = None  # one frame [height, width, 3], uint8


class Episodes(NamedTuple):
    """Raw rows of whole episodes, back to back, each with its successor row: what a recipe or an importer returns."""

    obs: Float[Array, "M N O"]
    state: Float[Array, "M S"]
    action: Float[Array, "M N A"]  # zeros in an episode's last row
    reward: Float[Array, "M N"]
    done: Float[Array, " M"]  # 1.0 where the transition that starts here terminates
    step: Int[Array, " M"]  # position in the episode
    left: Int[Array, " M"]  # rows after this one in the episode; 0 marks the successor row
    behaviour: Int[Array, " M"]  # which behaviour made the row; zeros where unknown


Recipe = Callable[[Key[Array, ""], int], Episodes]
"""(key, rows) -> episodes with that many transitions (rounded up to whole episodes), on the device."""


class Behaviours(NamedTuple):
    """The K joint behaviours that made a data set: behaviour k acts by N(m_k(o), std^2 I), clipped to [-1, 1]."""

    params: dict[str, Any]
    """Perceptrons as `envs.stored.play` takes them, whose outputs are the means; leaves lead with [K, N]."""
    numbers: Int[np.ndarray, " K"]
    """What `Dataset.behaviour` calls them."""
    shares: Float[np.ndarray, " K"]
    """Their shares of the transitions, which sum to 1."""
    std: float
    """Standard deviation of every action column, before the action is clipped to [-1, 1]."""


class Source(NamedTuple):
    """Which recipe made a data set."""

    task: str
    quality: str


class Scale(NamedTuple):
    """Team returns that a normalised score calls 0 and 100, and where they come from."""

    random: float
    expert: float
    source: str
    medium: float | None = None  # where the medium data lie, for orientation

    def normalise(self, score: Any) -> Any:
        """100 (S - S_random) / (S_expert - S_random)."""
        return 100.0 * (score - self.random) / (self.expert - self.random)


class Fields(NamedTuple):
    """What the columns of each agent's observation and action are called."""

    obs: tuple[tuple[str, ...], ...]
    action: tuple[tuple[str, ...], ...]


class Task(NamedTuple):
    """A named environment with the data sets that can be made for it and the answer that is known."""

    name: str
    env: Environment
    recipes: Mapping[str, Recipe]
    quality: str  # the recipe taken where none is named
    optimum: float | None = None  # largest attainable team return of an episode, where it is known
    about: str = ""  # one line: the rule, and where the optimum lies
    episodes: int = 32  # per evaluation
    rows: int = 100_000  # transitions in a data set made on demand
    scale: Scale | None = None  # of normalised scores, under the environment's dialect
    fields: Fields | None = None  # names of the columns, where the task has them
    behaviours: Mapping[
        str, Callable[[], Behaviours]
    ] = {}  # who made a quality's data, where that is known
    final_episodes: int = 1024  # of the final evaluation


# --- the data ---


class Layout(NamedTuple):
    """Widths of the blocks packed in `Dataset.rows` (static)."""

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
        out, at = {}, 0
        for name, shape in self.blocks.items():
            width = int(np.prod(shape))
            out[name] = rows[..., at : at + width].reshape(*rows.shape[:-1], *shape)
            at += width
        return out


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Dataset:
    """Rows of all episodes, back to back, successor rows included; raw units.

    The float blocks are packed side by side, so that a transition is one gather of two neighbouring rows.
    """

    rows: Float[Array, "M W"]
    step: Int[Array, " M"]
    left: Int[Array, " M"]
    starts: Int[
        Array, " M1"
    ]  # where a transition may start (a multiset: reweighting repeats entries, not rows)
    behaviour: Int[Array, " M"]
    extra: dict[str, Array]  # what prepare() adds: returns-to-go, alive, available, ...
    layout: Layout = dataclasses.field(metadata={"static": True})
    source: Source | None = dataclasses.field(
        default=None, metadata={"static": True}
    )  # None: not one of our recipes

    obs = property(lambda self: self.layout.unpack(self.rows)["obs"], doc="[M, N, O]")
    state = property(lambda self: self.layout.unpack(self.rows)["state"], doc="[M, S]")
    action = property(lambda self: self.layout.unpack(self.rows)["action"], doc="[M, N, A]")
    reward = property(lambda self: self.layout.unpack(self.rows)["reward"], doc="[M, N]")
    done = property(
        lambda self: self.layout.unpack(self.rows)["done"],
        doc="[M], 1.0 where a transition terminates",
    )
    known = property(
        lambda self: self.layout.unpack(self.rows)["known"],
        doc="[M], 0.0 where the successor is a copy",
    )
    last = property(
        lambda self: self.layout.unpack(self.rows)["last"],
        doc="[M], final transition, by time-out too",
    )


class Batch(NamedTuple):
    """Transitions drawn from a data set."""

    obs: Float[Array, "B N O"]
    state: Float[Array, "B S"]
    action: Float[Array, "B N A"]
    reward: Float[Array, "B N"]
    team_reward: Float[Array, " B"]
    next_obs: Float[Array, "B N O"]
    next_state: Float[Array, "B S"]
    next_action: Float[
        Array, "B N A"
    ]  # zeros where none was taken: after the last step, by time-out too
    done: Float[Array, " B"]
    last: Float[Array, " B"]
    known: Float[Array, " B"]
    alive: Float[Array, "B N"]
    available: Float[Array, "B N A"]
    next_available: Float[Array, "B N A"]


class Window(NamedTuple):
    """W = history + horizon + 1 neighbouring rows around drawn starts; the present is row `history`.

    Rows past an end of the episode repeat its outermost row: there `valid` is 0.0, and actions, rewards, done and last
    are zero. An episode's successor row is valid, but nothing was done in it: its action and reward are zero.
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
    extra: dict[str, Array]  # what `prepare` added to the rows: [B, W, ...]


# --- the systems ---


class Algorithm(NamedTuple):
    """A named tuple of pure functions, as optax's transformations are; networks and optimisers live in the closure."""

    init: Callable[[Key[Array, ""], Past, Dataset], State]
    batch: Callable[[Key[Array, ""], State, Dataset], Any]  # the only place that draws rows
    update: Callable[[Key[Array, ""], State, Past, Any], tuple[State, Metrics]]  # one gradient step
    act: (
        Callable[[Key[Array, ""], State, Past, Memory, Observation], tuple[Array, Memory]] | None
    ) = None
    memory: Memory = ()  # one environment's memory at the start of an episode
    centralised: bool = False  # True only where execution truly needs other agents' observations


class Limit(NamedTuple):
    """The share of a stage's numbers, told by a metric, above which its training is refused."""

    metric: str
    most: float
    field: str  # what is limited, as the refusal names it
    of: str  # what the share is of, after "at most 10%"
    way_out: str  # what to do, after "To go on,"


class Gate(NamedTuple):
    """What a figure of a trained stage has to reach, or may not exceed, for the stage to count as learned."""

    figure: str
    """The figure that is judged."""
    at_least: float | None = None
    """What it has to reach; give this or `at_most`."""
    at_most: float | None = None
    """What it may not exceed."""
    times: str = ""
    """A figure that needs no training, by which the number is multiplied; empty: the number stands alone."""


class Health(NamedTuple):
    """Figures of a stage on episodes that it was not trained on, next to figures that need no training."""

    measure: Callable[[Key[Array, ""], State, Past, Dataset], dict[str, Float[Array, ""]]]
    """(key, the stage's state, earlier stages, held-out episodes) -> figures."""
    gates: tuple[Gate, ...] = ()
    """When the stage counts as learned; none: it is not judged."""
    raise_fields: tuple[str, ...] = ()
    """Settings to raise where it has not learned."""


class Stage(NamedTuple):
    """An algorithm and how long it is trained.

    Two runs' stages are the same, and trained once, when name, owner, seed, data and the config's `fields` agree.
    Random streams follow the name alone, so that systems which differ in a stage still meet the same draws in it.
    """

    name: str
    algorithm: Algorithm
    steps: int
    chunk: int  # updates per scan; refresh runs before each scan
    every: int = 1  # chunks between report, evaluation and checkpoint
    fields: tuple[str, ...] | None = (
        None  # the config fields that reach this stage, steps and chunk among them; None: all
    )
    owner: str = ""  # the system whose own stage this is; "" where other systems may share it
    refresh: Callable[[Key[Array, ""], State, Past, Dataset], State] | None = (
        None  # pure, compiled with the scan
    )
    kept: Callable[[State], State] = lambda state: (
        state
    )  # of the state once the stage is finished: drop a replay here
    episodes: int = (
        0  # of an evaluation, where this stage's are dear; 0: as many as all others play
    )
    health: Health | None = None
    """What the trained stage is compared with, and when it has learned."""
    limits: tuple[Limit, ...] = ()  # of its metrics: the run stops above one


class System(NamedTuple):
    """A registry row."""

    Config: type
    check: Callable[
        [Spec, Any, Dataset | None], None
    ]  # host, concrete values: raises JaxomarlError with the way out
    prepare: Callable[[Spec, Any, Dataset], Dataset]  # host, once, static fields only
    pipeline: Callable[
        [Spec, Any, Environment | None], tuple[Stage, ...]
    ]  # env only for online systems
    online: bool = False


Denoise = Callable[[Array, Array], Array]
"""(x_t, t) -> estimate of x_0. The only currency of samplers and guidance."""


class Schedule(NamedTuple):
    """x_t = alpha(t) x_0 + sigma(t) eps, for t in [0, 1]."""

    alpha: Callable[[Array], Array]
    sigma: Callable[[Array], Array]
