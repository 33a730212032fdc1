"""PyTorch twins of OMSD's stages."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from benchmarks.twins import Place, Table, Twin, adam, annealed, covers, frozen, set_rate
from benchmarks.twins_networks import Drop, ResidualMLP, perceptron
from jaxomarl.base import Dataset, Spec, team_reward

# --- data and schedule ---


def seen(spec: Spec, cfg: Any, data: Dataset, stats: Any) -> dict[str, np.ndarray]:
    """Every row's observation and state as networks see them."""
    obs, state = np.asarray(data.obs), np.asarray(data.state)
    if cfg.normalise:
        obs = (obs - np.asarray(stats.obs_mean)) / np.asarray(stats.obs_std)
        state = (state - np.asarray(stats.state_mean)) / np.asarray(stats.state_std)
    return {
        "obs": obs * spec.obs_mask,
        "state": state,
        "action": np.asarray(data.action) * spec.act_mask,
    }


def goes_on(cfg: Any, data: Dataset) -> np.ndarray:
    """The factor of gamma V(s') of every row."""
    factor = (1.0 - np.asarray(data.done)) * np.asarray(data.known)
    return factor * (1.0 - np.asarray(data.last)) if cfg.time_limit == "terminal" else factor


def vp(t: Tensor) -> tuple[Tensor, Tensor]:
    """Values alpha(t) and sigma(t) of the variance-preserving schedule with betas 0.1 and 20."""
    log = -t * t * (19.9 / 4) - t * 0.05
    return log.exp(), (-torch.expm1(2 * log)).sqrt()


# --- critic ---


class Critic(Twin):
    """IQL's twin action values and state value on the joint action."""

    compiled = ("losses",)

    def __init__(self, spec: Spec, cfg: Any, data: Dataset, stats: Any) -> None:
        covers(cfg, critic_policy=False)
        self.cfg, self.batch = cfg, cfg.critic_batch
        see, reward = seen(spec, cfg, data, stats), np.asarray(data.reward)
        paid = reward[:, 0] if cfg.reward == "first" else team_reward(spec.team, reward)
        self.state_dim, joint = spec.state_dim, spec.agents * spec.act_width
        columns = {"state": see["state"], "action": see["action"].reshape(len(reward), joint)}
        both = np.concatenate(list(columns.values()), axis=1)
        self.table = Table(
            data,
            {"both": both, "reward": paid, "go_on": goes_on(cfg, data), "next_state": see["state"]},
        )
        hidden = (cfg.critic_width,) * 2
        self.q, self.target = (
            perceptron(2, (spec.state_dim + joint, *hidden, 1)) for _ in range(2)
        )
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
        self, both: Tensor, reward: Tensor, go_on: Tensor, next_state: Tensor
    ) -> dict[str, Tensor]:
        """Both losses; all that they are pulled towards is held constant."""
        x = both.expand(2, *both.shape)
        with torch.no_grad():
            q_min = self.target(x).amin(0)
            y = reward + float(self.cfg.gamma) * go_on * self.v(next_state)
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

    def __init__(self, spec: Spec, cfg: Any, data: Dataset, stats: Any) -> None:
        covers(cfg, score_model="diffusion", condition="obs", order="")
        self.cfg, self.batch, self.count = cfg, cfg.score_batch, 0
        self.shape = spec.agents, spec.act_width
        see = seen(spec, cfg, data, stats)
        self.table = Table(data, {"obs": see["obs"], "action": see["action"]})
        self.mask = torch.from_numpy(spec.act_mask)[:, None]  # [N, 1, A]
        self.before = torch.ones(spec.agents, spec.agents).tril(-1)[
            :, None, :, None
        ]  # [N, 1, N, 1]
        self.net = noise_network(spec, cfg, spec.agents)
        self.optimiser = adam([self.net], float(cfg.score_lr), float(cfg.score_decay))
        self.learned, self.given = {"params": Place([self.net])}, {}

    def noise(self) -> ScoreNoise:
        """Fresh times and noise; dropout is drawn where it acts."""
        n, width = self.shape
        t = torch.rand(n, self.batch) * (1.0 - 1e-3) + 1e-3
        return ScoreNoise(t, torch.randn(n, self.batch, width) * self.mask, True)

    def loss(self, obs: Tensor, action: Tensor, noise: ScoreNoise) -> Tensor:
        """Each agent's denoising loss [N]."""
        n, width = self.shape
        obs, action = obs.unflatten(1, (n, -1)).transpose(0, 1), action.unflatten(1, (n, width))
        cond = torch.cat([obs, (self.before * action).flatten(2)], -1)
        alpha, sigma = vp(noise.t[..., None])
        x = alpha * action.transpose(0, 1) + sigma * noise.z
        error = self.mask * self.net(x, noise.t, cond, noise.drop) - noise.z
        return error.square().sum(-1).mean(-1)

    def update(self, rows: tuple[Tensor, ...], noise: ScoreNoise) -> dict[str, Tensor]:
        """One step of every agent's network."""
        loss = self.loss(*rows, noise)
        self.optimiser.zero_grad()
        loss.sum().backward()
        set_rate(
            self.optimiser,
            annealed(float(self.cfg.score_lr), self.count, self.cfg.score_steps, end=1e-5),
        )
        self.optimiser.step()
        self.count += 1
        return {"score_loss": loss.detach().mean()}


def noise_network(spec: Spec, cfg: Any, models: int) -> ResidualMLP:
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

    compiled = ("play", "pull", "slope")

    def __init__(self, spec: Spec, cfg: Any, data: Dataset, stats: Any) -> None:
        covers(
            cfg,
            score_model="diffusion",
            condition="obs",
            order="",
            sweep="gauss-seidel",
            control_variate=False,
        )
        covers(cfg, policy_optimiser="adam", normalise_gradient=False, beta_convention="code")
        if cfg.weighting not in ("vds", "score"):
            covers(cfg, weighting="vds")
        self.cfg, self.batch, self.count, n = cfg, cfg.policy_batch, 0, spec.agents
        self.shape = n, spec.act_width
        see, hidden = (
            seen(spec, cfg, data, stats),
            (cfg.policy_width,) * 2 if cfg.policy_width else (),
        )
        self.table = Table(data, {"obs": see["obs"], "state": see["state"]})
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
        low, high = float(self.cfg.t_min), float(self.cfg.t_max)
        t = low + (high - low) * torch.rand(self.batch, self.shape[0])
        return PolicyNoise(t, torch.randn(self.batch, *self.shape) * self.mask)

    def play(self, i: int, obs: Tensor) -> Tensor:
        """Agent i's action."""
        return self.mask[i] * torch.tanh(self.actors[i](obs))

    def pull(self, i: int, joint: Tensor, obs: Tensor, noise: PolicyNoise) -> Tensor:
        """W(t) eps_i at agent i's noised action, told the actions before it."""
        t = noise.t[:, i]
        alpha, sigma = vp(t[:, None])
        heard = torch.cat([joint[:, :i], torch.zeros_like(joint[:, i:])], 1)
        x = alpha * joint[:, i] + sigma * noise.z[:, i]
        e = self.mask[i] * self.scores[i](x, t, torch.cat([obs, heard.flatten(1)], -1), False)
        return (sigma**2 if self.cfg.weighting == "vds" else alpha / sigma) * e

    def slope(self, state: Tensor, joint: Tensor) -> Tensor:
        """The mean of the twins, summed over the batch."""
        x = torch.cat([state, joint.flatten(1)], -1)
        return self.q(x.expand(2, *x.shape)).mean(0).sum()

    def update(self, rows: tuple[Tensor, ...], noise: PolicyNoise) -> dict[str, Tensor]:
        """One step of every agent, in order; an agent's first action is played once, for prefixes and for its loss."""
        n, beta, losses = self.shape[0], float(self.cfg.beta), []
        obs, state = rows[0].unflatten(1, (n, -1)), rows[1]
        played = [self.play(i, obs[:, i]) for i in range(n)]
        joint = torch.stack([a.detach() for a in played], 1)
        rate = annealed(float(self.cfg.policy_lr), self.count, self.cfg.policy_steps)
        for i in range(n):
            with torch.no_grad():
                e = self.pull(i, joint, obs[:, i], noise)
            at = joint.detach().requires_grad_()
            g = self.mask[i] * torch.autograd.grad(self.slope(state, at), at)[0][:, i]
            loss = ((e - beta * g) * played[i]).sum(-1).mean()
            self.optimisers[i].zero_grad()
            loss.backward()
            set_rate(
                self.optimisers[i], rate if self.cfg.policy_anneal else float(self.cfg.policy_lr)
            )
            self.optimisers[i].step()
            losses.append(loss.detach())
            if i < n - 1:  # nobody hears the last one
                with torch.no_grad():
                    joint[:, i] = self.play(i, obs[:, i])
        self.count += 1
        return {"policy_loss": torch.stack(losses).mean()}
