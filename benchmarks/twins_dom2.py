"""The PyTorch twin of DOM2."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from benchmarks.twins import Place, Table, Twin, adam, covers, frozen
from benchmarks.twins_networks import Drop, ResidualUNet, perceptron
from benchmarks.twins_omsd import bootstrap_factor, inputs
from jaxomarl.algorithms.dom2 import Config
from jaxomarl.base import Dataset, Spec, team_reward
from jaxomarl.data.stats import Stats


class Noise(NamedTuple):
    """The random numbers of one update; N leads."""

    after: Tensor
    """Start of the target policy's chain [N, B, A]."""
    proposed: Tensor
    """The M actions of the conservative term [N, M, B, A], in [-1, 1]."""
    t: Tensor
    """Times [N, B]."""
    z: Tensor
    """Noise of the denoising loss [N, B, A]."""
    drop: Drop
    acting: Tensor
    """Start of the policy's chain [N, B, A]."""


class Dom2(Twin):
    """All agents' diffusion policies and twin critics, in batched products."""

    compiled = ("q_losses", "policy_losses", "after")

    def __init__(self, spec: Spec, cfg: Config, data: Dataset, stats: Stats) -> None:
        covers(cfg, network="unet", improvement=True, denoising=True)
        covers(cfg, clip_denoised=False, schedule="cumulative")
        self.cfg = cfg
        self.batch = cfg.policy_batch
        n = spec.agents
        self.shape = n, spec.act_width
        self.mask = torch.from_numpy(spec.act_mask)[:, None]  # [N, 1, A]
        self.table = transitions(spec, cfg, data, stats)

        # log probability [N, 1, 1] of a uniform action in the box
        self.log_p = -math.log(2.0) * self.mask.sum(-1)[:, None]
        alpha, sigma = levels(cfg.levels)
        self.alpha = torch.tensor(alpha, dtype=torch.float32)
        self.sigma = torch.tensor(sigma, dtype=torch.float32)

        # --- networks ---
        sizes = spec.act_width, spec.obs_width, cfg.policy_width, cfg.embedding, cfg.dropout
        self.eps = ResidualUNet(n, *sizes)
        self.eps_target = ResidualUNet(n, *sizes)
        widths = (spec.obs_width + spec.act_width, cfg.critic_width, cfg.critic_width, 1)
        self.q = [perceptron(n, widths, nn.Mish) for _ in range(2)]
        self.q_target = [perceptron(n, widths, nn.Mish) for _ in range(2)]
        for module in (self.eps_target, *self.q_target):
            frozen(module)

        # --- optimisers ---
        self.policy = adam([self.eps], float(cfg.policy_lr))
        self.critics = adam(self.q, float(cfg.critic_lr))
        self.of_policy = list(self.eps.parameters())
        self.of_critics = parameters(self.q)
        self.targets = [*self.eps_target.parameters(), *parameters(self.q_target)]
        self.follow = get_ema_multi_avg_fn(1.0 - float(cfg.polyak))
        self.learned = {
            "actor.params": Place([self.eps]),
            "actor.target": Place([self.eps_target]),
            "critic.params": Place(self.q, axis=1),
            "critic.target": Place(self.q_target, axis=1),
        }
        self.given = {}

    def noise(self) -> Noise:
        """Fresh random numbers; dropout is drawn where it acts."""
        n, width = self.shape
        normal = lambda: torch.randn(n, self.batch, width) * self.mask
        u = torch.rand(n, self.cfg.samples, self.batch, width)
        proposed = self.mask[:, None] * (2.0 * u - 1.0)
        t = torch.randint(1, self.cfg.levels + 1, (n, self.batch)) / self.cfg.levels
        return Noise(normal(), proposed, t, normal(), True, normal())

    def chain(self, net: nn.Module, x: Tensor, obs: Tensor) -> Tensor:
        """Actions [N, B, A] in the box, by deterministic steps from the noise `x`."""
        for k in range(self.cfg.levels, 0, -1):
            alpha = self.alpha[k]
            sigma = self.sigma[k]
            eps = net(x, torch.full((), k / self.cfg.levels), obs, False)
            clean = self.mask * (x - sigma * eps) / alpha
            keep = self.sigma[k - 1] / sigma
            x = keep * x + (self.alpha[k - 1] - alpha * keep) * clean
        return x.clamp(-1.0, 1.0)

    def after(self, next_obs: Tensor, noise: Tensor) -> Tensor:
        """The target policy's next actions."""
        return self.chain(self.eps_target, noise, next_obs)

    def q_losses(
        self,
        obs: Tensor,
        action: Tensor,
        reward: Tensor,
        bootstrap: Tensor,
        next_obs: Tensor,
        after: Tensor,
        proposed: Tensor,
    ) -> dict[str, Tensor]:
        """The two parts of the critics' loss, of each agent [N].

        The data's actions and the proposed ones are one batch.
        """
        n, m, b, _ = proposed.shape
        with torch.no_grad():
            x = torch.cat([next_obs, after], -1)
            ahead = torch.minimum(self.q_target[0](x), self.q_target[1](x))[..., 0]
            y = reward + float(self.cfg.gamma) * bootstrap * ahead
        acts = torch.cat([action[:, None], proposed], 1)
        repeated = obs[:, None].expand(n, 1 + m, b, obs.shape[-1])
        x = torch.cat([repeated, acts], -1).view(n, (1 + m) * b, -1)
        fit = []
        gap = []
        for member in self.q:
            q = member(x).view(n, 1 + m, b)
            fit.append((q[:, 0] - y).square().mean(-1))
            over = torch.logsumexp(q[:, 1:] - self.log_p, 1) - math.log(m)
            gap.append((over - q[:, 0]).mean(-1))
        return {"q_loss": fit[0] + fit[1], "q_gap": gap[0] + gap[1]}

    def policy_losses(self, obs: Tensor, action: Tensor, noise: Noise) -> dict[str, Tensor]:
        """The two parts of the policy's loss, of each agent [N]."""
        place = (noise.t * self.cfg.levels).round().long()
        x = self.alpha[place][..., None] * action + self.sigma[place][..., None] * noise.z
        error = self.eps(x, noise.t, obs, noise.drop) - noise.z
        fit = (self.mask * error.square()).sum(-1).mean(-1)
        acts = self.chain(self.eps, noise.acting, obs)
        q = self.q[0](torch.cat([obs, acts], -1))[..., 0]
        with torch.no_grad():
            size = self.q[0](torch.cat([obs, action], -1))[..., 0].abs().mean(-1) + 1e-8
        return {"denoising_loss": fit, "value": -float(self.cfg.eta) * q.mean(-1) / size}

    def update(self, rows: tuple[Tensor, ...], noise: Noise) -> dict[str, Tensor]:
        """One step of the critics, one of the policies under them, and one of the targets."""
        n, width = self.shape
        obs, action, reward, bootstrap, next_obs = rows
        obs = obs.unflatten(1, (n, -1)).transpose(0, 1)
        next_obs = next_obs.unflatten(1, (n, -1)).transpose(0, 1)
        action = action.unflatten(1, (n, width)).transpose(0, 1)
        reward = reward.t()
        bootstrap = bootstrap.t()

        # --- critics ---
        with torch.no_grad():
            after = self.after(next_obs, noise.after)
        for member in self.q:
            member.requires_grad_(True)
        of_critics = self.q_losses(obs, action, reward, bootstrap, next_obs, after, noise.proposed)
        total = of_critics["q_loss"] + float(self.cfg.penalty) * of_critics["q_gap"]
        self.descend(self.critics, self.of_critics, total)

        # --- policies ---
        for member in self.q:
            frozen(member)
        of_policy = self.policy_losses(obs, action, noise)
        policy_loss = of_policy["denoising_loss"] + of_policy["value"]
        self.descend(self.policy, self.of_policy, policy_loss)

        # --- targets ---
        self.follow(self.targets, [*self.of_policy, *self.of_critics], None)

        losses = {
            "q_loss": of_critics["q_loss"],
            "q_gap": of_critics["q_gap"] / 2,
            "policy_loss": policy_loss,
            "denoising_loss": of_policy["denoising_loss"],
        }
        return {name: x.detach().mean() for name, x in losses.items()}

    def descend(
        self, optimiser: torch.optim.Optimizer, trained: Sequence[nn.Parameter], loss: Tensor
    ) -> None:
        """One step down each agent's loss, with a gradient norm of at most `cfg.clip` each."""
        optimiser.zero_grad()
        loss.sum().backward()
        grads = [p.grad for p in trained if p.grad is not None]
        norms = torch.stack([torch.linalg.vector_norm(g, dim=(1, 2)) for g in grads])
        share = (float(self.cfg.clip) / torch.linalg.vector_norm(norms, dim=0)).clamp(max=1.0)
        for g in grads:
            g.mul_(share[:, None, None])
        optimiser.step()


def transitions(spec: Spec, cfg: Config, data: Dataset, stats: Stats) -> Table:
    """The transitions of DOM2's update."""
    rows = inputs(spec, cfg, data, stats)
    reward = np.asarray(data.reward)
    if cfg.reward != "own":
        reward = np.repeat(team_reward(spec.team, reward)[:, None], spec.agents, axis=1)
    columns = {
        "obs": rows["obs"],
        "action": rows["action"],
        "reward": reward,
        "bootstrap": bootstrap_factor(cfg, data),
        "next_obs": rows["obs"],
    }
    return Table(data, columns)


def parameters(modules: Sequence[nn.Module]) -> list[nn.Parameter]:
    """The parameters of all modules, in order."""
    return [p for module in modules for p in module.parameters()]


def levels(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The levels alpha and sigma at i / N, i = 0..N, of the product of 1 - beta; clean at 0."""
    i = np.arange(1, steps + 1)
    n = steps + 1
    first = -0.1 / n - 19.9 / (2 * n * n)
    later = -0.1 / n - 19.9 * (2 * i + 1) / (2 * n * n)
    log_product = np.cumsum(np.append(first, later))
    log = np.append(0.0, log_product[1:] / 2)
    return np.exp(log), np.sqrt(-np.expm1(2 * log))
