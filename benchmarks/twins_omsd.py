"""PyTorch twins of OMSD's stages."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from benchmarks.twins import Place, Table, Twin, adam, annealed, covers, frozen, set_rate
from benchmarks.twins_networks import Drop, ResidualMLP, perceptron
from jaxomarl.algorithms import dom2
from jaxomarl.algorithms.omsd import Config
from jaxomarl.base import Dataset, Spec, team_reward
from jaxomarl.data.stats import Stats

# --- data and schedule ---


def inputs(
    spec: Spec, cfg: Config | dom2.Config, data: Dataset, stats: Stats
) -> dict[str, np.ndarray]:
    """Every row's normalised observation and state, and its action."""
    obs = np.asarray(data.obs)
    state = np.asarray(data.state)
    if cfg.normalise:
        obs = (obs - np.asarray(stats.obs_mean)) / np.asarray(stats.obs_std)
        state = (state - np.asarray(stats.state_mean)) / np.asarray(stats.state_std)
    return {
        "obs": obs * spec.obs_mask,
        "state": state,
        "action": np.asarray(data.action) * spec.act_mask,
    }


def bootstrap_factor(cfg: Config | dom2.Config, data: Dataset) -> np.ndarray:
    """The factor of gamma V(s') of every row."""
    factor = (1.0 - np.asarray(data.done)) * np.asarray(data.known)
    if cfg.time_limit == "terminal":
        factor = factor * (1.0 - np.asarray(data.last))
    return factor


def vp(t: Tensor) -> tuple[Tensor, Tensor]:
    """alpha(t) and sigma(t) of the variance-preserving schedule with betas 0.1 and 20."""
    log = -t * t * (19.9 / 4) - t * 0.05
    return log.exp(), (-torch.expm1(2 * log)).sqrt()


# --- critic ---


class Critic(Twin):
    """IQL's twin action values and state value on the joint action."""

    compiled = ("losses",)

    def __init__(self, spec: Spec, cfg: Config, data: Dataset, stats: Stats) -> None:
        covers(cfg, critic_policy=False)
        self.cfg = cfg
        self.batch = cfg.critic_batch
        self.state_dim = spec.state_dim

        # --- data ---
        rows = inputs(spec, cfg, data, stats)
        reward = np.asarray(data.reward)
        first = cfg.reward == "first"
        learned_reward = reward[:, 0] if first else team_reward(spec.team, reward)
        joint = spec.agents * spec.act_width
        action = rows["action"].reshape(len(reward), joint)
        columns = {
            "both": np.concatenate([rows["state"], action], axis=1),
            "reward": learned_reward,
            "bootstrap": bootstrap_factor(cfg, data),
            "next_state": rows["state"],
        }
        self.table = Table(data, columns)

        # --- networks ---
        hidden = (cfg.critic_width,) * 2
        widths = (spec.state_dim + joint, *hidden, 1)
        self.q = perceptron(2, widths)
        self.target = perceptron(2, widths)
        self.v = perceptron(0, (spec.state_dim, *hidden, 1))
        self.optimiser = adam((self.q, self.v), float(cfg.critic_lr))
        self.pairs = list(frozen(self.target).parameters()), list(self.q.parameters())
        self.follow = get_ema_multi_avg_fn(1.0 - float(cfg.critic_polyak))
        self.learned = {
            "q.params": Place([self.q]),
            "q.target": Place([self.target]),
            "v.params": Place([self.v]),
        }
        self.given = {}

    def losses(
        self, both: Tensor, reward: Tensor, bootstrap: Tensor, next_state: Tensor
    ) -> dict[str, Tensor]:
        """Both losses; their targets are constant."""
        x = both.expand(2, *both.shape)
        with torch.no_grad():
            q_min = self.target(x).amin(0)
            y = reward + float(self.cfg.gamma) * bootstrap * self.v(next_state)
        u = q_min - self.v(both[:, : self.state_dim])
        tau = float(self.cfg.expectile)
        v_loss = (torch.where(u < 0, 1.0 - tau, tau) * u.square()).mean()
        return {"v_loss": v_loss, "q_loss": 0.5 * (self.q(x) - y).square().mean(1).sum()}

    def update(self, rows: tuple[Tensor, ...], noise: None = None) -> dict[str, Tensor]:
        """One step of both, and the targets follow."""
        losses = self.losses(*rows)
        self.optimiser.zero_grad()
        (losses["v_loss"] + losses["q_loss"]).backward()
        self.optimiser.step()
        self.follow(*self.pairs, None)
        return {k: x.detach() for k, x in losses.items()}


# --- scores ---


class ScoreNoise(NamedTuple):
    """Times [N, B], noise [N, B, A], and dropout."""

    t: Tensor
    z: Tensor
    drop: Drop


class Scores(Twin):
    """All agents' conditional noise networks, in one batched update."""

    compiled = ("loss",)

    def __init__(self, spec: Spec, cfg: Config, data: Dataset, stats: Stats) -> None:
        covers(cfg, score_model="diffusion", condition="obs", order="")
        self.cfg = cfg
        self.batch = cfg.score_batch
        self.count = 0
        self.shape = spec.agents, spec.act_width
        rows = inputs(spec, cfg, data, stats)
        self.table = Table(data, {"obs": rows["obs"], "action": rows["action"]})
        self.mask = torch.from_numpy(spec.act_mask)[:, None]  # [N, 1, A]
        preceding = torch.ones(spec.agents, spec.agents).tril(-1)
        self.preceding = preceding[:, None, :, None]  # [N, 1, N, 1]
        self.net = noise_network(spec, cfg, spec.agents)
        self.optimiser = adam([self.net], float(cfg.score_lr), float(cfg.score_decay))
        self.learned = {"params": Place([self.net])}
        self.given = {}

    def noise(self) -> ScoreNoise:
        """Fresh times and noise; dropout is drawn where it acts."""
        n, width = self.shape
        t = torch.rand(n, self.batch) * (1.0 - 1e-3) + 1e-3
        return ScoreNoise(t, torch.randn(n, self.batch, width) * self.mask, True)

    def loss(self, obs: Tensor, action: Tensor, noise: ScoreNoise) -> Tensor:
        """Each agent's denoising loss [N]."""
        n, width = self.shape
        obs = obs.unflatten(1, (n, -1)).transpose(0, 1)
        action = action.unflatten(1, (n, width))
        cond = torch.cat([obs, (self.preceding * action).flatten(2)], -1)
        alpha, sigma = vp(noise.t[..., None])
        x = alpha * action.transpose(0, 1) + sigma * noise.z
        error = self.mask * self.net(x, noise.t, cond, noise.drop) - noise.z
        return error.square().sum(-1).mean(-1)

    def update(self, rows: tuple[Tensor, ...], noise: ScoreNoise) -> dict[str, Tensor]:
        """One step of every agent's network."""
        loss = self.loss(*rows, noise)
        self.optimiser.zero_grad()
        loss.sum().backward()
        first_rate = float(self.cfg.score_lr)
        rate = annealed(first_rate, self.count, self.cfg.score_steps, end=1e-5)
        set_rate(self.optimiser, rate)
        self.optimiser.step()
        self.count += 1
        return {"score_loss": loss.detach().mean()}


def noise_network(spec: Spec, cfg: Config, models: int) -> ResidualMLP:
    """Noise networks of `models` agents at once, or of one (0)."""
    cond = spec.obs_width + spec.agents * spec.act_width
    sizes = cfg.score_width, cfg.score_blocks, cfg.score_dropout, cfg.score_embedding
    return ResidualMLP(models, spec.act_width, cond, *sizes)


# --- policies ---


class PolicyNoise(NamedTuple):
    """Times [B, N] and noise [B, N, A]."""

    t: Tensor
    z: Tensor


class Policy(Twin):
    """OMSD's sequence of best responses: each agent in turn follows its score and the critic."""

    compiled = ("act", "score_term", "critic_sum")

    def __init__(self, spec: Spec, cfg: Config, data: Dataset, stats: Stats) -> None:
        covers(cfg, score_model="diffusion", condition="obs", order="")
        covers(cfg, sweep="gauss-seidel", control_variate=False)
        covers(cfg, policy_optimiser="adam", normalise_gradient=False, beta_convention="code")
        if cfg.weighting not in ("vds", "score"):
            covers(cfg, weighting="vds")
        self.cfg = cfg
        self.batch = cfg.policy_batch
        self.count = 0
        n = spec.agents
        self.shape = n, spec.act_width
        rows = inputs(spec, cfg, data, stats)
        self.table = Table(data, {"obs": rows["obs"], "state": rows["state"]})

        # --- networks ---
        hidden = (cfg.policy_width,) * 2 if cfg.policy_width else ()
        self.mask = torch.from_numpy(spec.act_mask)
        self.actors = [perceptron(0, (spec.obs_width, *hidden, spec.act_width)) for _ in range(n)]
        self.scores = [frozen(noise_network(spec, cfg, 0)) for _ in range(n)]
        joint = spec.state_dim + n * spec.act_width
        self.q = frozen(perceptron(2, (joint, *(cfg.critic_width,) * 2, 1)))
        self.optimisers = [adam([actor], float(cfg.policy_lr)) for actor in self.actors]
        self.learned = {"actor.params": Place(self.actors)}
        self.given = {
            "critic.q.target": Place([self.q]),
            "scores-conditional.params": Place(self.scores),
        }

    def noise(self) -> PolicyNoise:
        """Fresh times and noise."""
        low = float(self.cfg.t_min)
        high = float(self.cfg.t_max)
        t = low + (high - low) * torch.rand(self.batch, self.shape[0])
        return PolicyNoise(t, torch.randn(self.batch, *self.shape) * self.mask)

    def act(self, i: int, obs: Tensor) -> Tensor:
        """Agent i's action."""
        return self.mask[i] * torch.tanh(self.actors[i](obs))

    def score_term(self, i: int, joint: Tensor, obs: Tensor, noise: PolicyNoise) -> Tensor:
        """w(t) eps_i at agent i's noised action, conditioned on the preceding actions."""
        t = noise.t[:, i]
        alpha, sigma = vp(t[:, None])
        weight = sigma**2 if self.cfg.weighting == "vds" else alpha / sigma
        prefix = torch.cat([joint[:, :i], torch.zeros_like(joint[:, i:])], 1)
        x = alpha * joint[:, i] + sigma * noise.z[:, i]
        cond = torch.cat([obs, prefix.flatten(1)], -1)
        return weight * (self.mask[i] * self.scores[i](x, t, cond, False))

    def critic_sum(self, state: Tensor, joint: Tensor) -> Tensor:
        """The mean of the twin critics, summed over the batch."""
        x = torch.cat([state, joint.flatten(1)], -1)
        return self.q(x.expand(2, *x.shape)).mean(0).sum()

    def update(self, rows: tuple[Tensor, ...], noise: PolicyNoise) -> dict[str, Tensor]:
        """One step of every agent, in order.

        An agent's first action is computed once, for prefixes and for its loss.
        """
        n = self.shape[0]
        beta = float(self.cfg.beta)
        obs = rows[0].unflatten(1, (n, -1))
        state = rows[1]
        actions = [self.act(i, obs[:, i]) for i in range(n)]
        joint = torch.stack([a.detach() for a in actions], 1)
        rate = float(self.cfg.policy_lr)
        if self.cfg.policy_anneal:
            rate = annealed(rate, self.count, self.cfg.policy_steps)

        losses = []
        for i in range(n):
            # --- agent i's loss ---
            with torch.no_grad():
                e = self.score_term(i, joint, obs[:, i], noise)
            at = joint.detach().requires_grad_()
            g = self.mask[i] * torch.autograd.grad(self.critic_sum(state, at), at)[0][:, i]
            loss = ((e - beta * g) * actions[i]).sum(-1).mean()
            losses.append(loss.detach())

            # --- its step ---
            self.optimisers[i].zero_grad()
            loss.backward()
            set_rate(self.optimisers[i], rate)
            self.optimisers[i].step()

            # --- its new action; no agent is conditioned on the last one ---
            if i < n - 1:
                with torch.no_grad():
                    joint[:, i] = self.act(i, obs[:, i])
        self.count += 1
        return {"policy_loss": torch.stack(losses).mean()}
