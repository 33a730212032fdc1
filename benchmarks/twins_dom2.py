"""The PyTorch twin of DOM2."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from benchmarks.twins import Place, Table, Twin, adam, covers, frozen
from benchmarks.twins_networks import Drop, ResidualUNet, perceptron
from benchmarks.twins_omsd import goes_on, seen
from jaxomarl.base import Dataset, Spec, team_reward


class Noise(NamedTuple):
    """What one update draws; N leads. M actions of the conservative term."""

    after: Tensor  # [N, B, A], where the target policy's chain starts
    proposed: Tensor  # [N, M, B, A], in [-1, 1]
    t: Tensor  # [N, B]
    z: Tensor  # [N, B, A]
    drop: Drop
    played: Tensor  # [N, B, A], where the policy's chain starts


class Dom2(Twin):
    """All agents' diffusion policies and twin critics, side by side in batched products."""

    compiled = ("q_losses", "policy_losses", "after")

    def __init__(self, spec: Spec, cfg: Any, data: Dataset, stats: Any) -> None:
        covers(
            cfg,
            network="unet",
            improvement=True,
            denoising=True,
            clip_denoised=False,
            schedule="cumulative",
        )
        self.cfg, self.batch, n = cfg, cfg.policy_batch, spec.agents
        see, self.shape = seen(spec, cfg, data, stats), (n, spec.act_width)
        reward = np.asarray(data.reward)
        paid = (
            reward
            if cfg.reward == "own"
            else np.repeat(team_reward(spec.team, reward)[:, None], n, axis=1)
        )
        columns = {
            "obs": see["obs"],
            "action": see["action"],
            "reward": paid,
            "go_on": goes_on(cfg, data),
        }
        self.table = Table(data, {**columns, "next_obs": see["obs"]})
        self.mask = torch.from_numpy(spec.act_mask)[:, None]  # [N, 1, A]
        self.log_p = (
            -math.log(2.0) * self.mask.sum(-1)[:, None]
        )  # [N, 1, 1], of a uniform action of the box
        sizes = spec.act_width, spec.obs_width, cfg.policy_width, cfg.embedding, cfg.dropout
        self.eps, self.eps_target = (ResidualUNet(n, *sizes) for _ in range(2))
        widths = (spec.obs_width + spec.act_width, cfg.critic_width, cfg.critic_width, 1)
        self.q, self.q_target = (
            [perceptron(n, widths, nn.Mish) for _ in range(2)] for _ in range(2)
        )
        for module in (self.eps_target, *self.q_target):
            frozen(module)
        self.policy, self.critics = (
            adam([self.eps], float(cfg.policy_lr)),
            adam(self.q, float(cfg.critic_lr)),
        )
        self.of_policy, self.of_critics = list(self.eps.parameters()), parameters(self.q)
        self.targets = [*self.eps_target.parameters(), *parameters(self.q_target)]
        self.follow = get_ema_multi_avg_fn(1.0 - float(cfg.polyak))
        self.learned = {
            "actor.params": Place([self.eps]),
            "actor.target": Place([self.eps_target]),
            "critic.params": Place(self.q, axis=1),
            "critic.target": Place(self.q_target, axis=1),
        }
        self.given = {}
        alpha, sigma = levels(cfg.levels)
        self.alpha, self.sigma = (
            torch.tensor(alpha, dtype=torch.float32),
            torch.tensor(sigma, dtype=torch.float32),
        )

    def noise(self) -> Noise:
        """Fresh random numbers; dropout is drawn where it acts."""
        n, width = self.shape
        normal = lambda: torch.randn(n, self.batch, width) * self.mask
        proposed = self.mask[:, None] * (
            2.0 * torch.rand(n, self.cfg.samples, self.batch, width) - 1.0
        )
        t = torch.randint(1, self.cfg.levels + 1, (n, self.batch)) / self.cfg.levels
        return Noise(normal(), proposed, t, normal(), True, normal())

    def chain(self, net: nn.Module, x: Tensor, obs: Tensor) -> Tensor:
        """Actions [N, B, A] in the box, by deterministic steps from the noise `x`."""
        for k in range(self.cfg.levels, 0, -1):
            alpha, sigma = self.alpha[k], self.sigma[k]
            eps = net(x, torch.full((), k / self.cfg.levels), obs, False)
            clean = self.mask * (x - sigma * eps) / alpha
            keep = self.sigma[k - 1] / sigma
            x = keep * x + (self.alpha[k - 1] - alpha * keep) * clean
        return x.clamp(-1.0, 1.0)

    def after(self, next_obs: Tensor, noise: Tensor) -> Tensor:
        """What the target policy does next."""
        return self.chain(self.eps_target, noise, next_obs)

    def q_losses(
        self,
        obs: Tensor,
        action: Tensor,
        reward: Tensor,
        go_on: Tensor,
        next_obs: Tensor,
        after: Tensor,
        proposed: Tensor,
    ) -> dict[str, Tensor]:
        """The critics' loss by its two parts, of each agent [N]; the data's actions and the proposed ones at once."""
        n, m, b, _ = proposed.shape
        with torch.no_grad():
            x = torch.cat([next_obs, after], -1)
            ahead = torch.minimum(self.q_target[0](x), self.q_target[1](x))[..., 0]
            y = reward + float(self.cfg.gamma) * go_on * ahead
        acts = torch.cat([action[:, None], proposed], 1)
        x = torch.cat([obs[:, None].expand(n, 1 + m, b, obs.shape[-1]), acts], -1).view(
            n, (1 + m) * b, -1
        )
        fit, gap = [], []
        for member in self.q:
            q = member(x).view(n, 1 + m, b)
            fit.append((q[:, 0] - y).square().mean(-1))
            over = torch.logsumexp(q[:, 1:] - self.log_p, 1) - math.log(m)
            gap.append((over - q[:, 0]).mean(-1))
        return {"q_loss": fit[0] + fit[1], "q_gap": gap[0] + gap[1]}

    def policy_losses(self, obs: Tensor, action: Tensor, noise: Noise) -> dict[str, Tensor]:
        """The policy's loss by its two parts, of each agent [N]."""
        place = (noise.t * self.cfg.levels).round().long()
        x = self.alpha[place][..., None] * action + self.sigma[place][..., None] * noise.z
        error = self.eps(x, noise.t, obs, noise.drop) - noise.z
        fit = (self.mask * error.square()).sum(-1).mean(-1)
        q = self.q[0](torch.cat([obs, self.chain(self.eps, noise.played, obs)], -1))[..., 0]
        with torch.no_grad():
            size = self.q[0](torch.cat([obs, action], -1))[..., 0].abs().mean(-1) + 1e-8
        return {"denoising_loss": fit, "value": -float(self.cfg.eta) * q.mean(-1) / size}

    def update(self, rows: tuple[Tensor, ...], noise: Noise) -> dict[str, Tensor]:
        """One step of the critics, one of the policies under the new critics, and the targets follow."""
        n, width = self.shape
        obs, action, reward, go_on, next_obs = rows
        obs, next_obs = (x.unflatten(1, (n, -1)).transpose(0, 1) for x in (obs, next_obs))
        action, reward, go_on = (
            action.unflatten(1, (n, width)).transpose(0, 1),
            reward.t(),
            go_on.t(),
        )
        with torch.no_grad():
            after = self.after(next_obs, noise.after)
        for member in self.q:
            member.requires_grad_(True)
        judged = self.q_losses(obs, action, reward, go_on, next_obs, after, noise.proposed)
        total = judged["q_loss"] + float(self.cfg.penalty) * judged["q_gap"]
        self.descend(self.critics, self.of_critics, total)
        for member in self.q:
            frozen(member)
        played = self.policy_losses(obs, action, noise)
        total = played["denoising_loss"] + played["value"]
        self.descend(self.policy, self.of_policy, total)
        self.follow(self.targets, [*self.of_policy, *self.of_critics], None)
        losses = {"q_loss": judged["q_loss"], "q_gap": judged["q_gap"] / 2, "policy_loss": total}
        losses["denoising_loss"] = played["denoising_loss"]
        return {k: x.detach().mean() for k, x in losses.items()}

    def descend(
        self, optimiser: torch.optim.Optimizer, held: Sequence[nn.Parameter], loss: Tensor
    ) -> None:
        """One step down each agent's loss, on gradients of a norm of at most `cfg.clip` for each agent."""
        optimiser.zero_grad()
        loss.sum().backward()
        grads = [p.grad for p in held if p.grad is not None]
        norms = torch.stack([torch.linalg.vector_norm(g, dim=(1, 2)) for g in grads])
        share = (float(self.cfg.clip) / torch.linalg.vector_norm(norms, dim=0)).clamp(max=1.0)[
            :, None, None
        ]
        for g in grads:
            g.mul_(share)
        optimiser.step()


def parameters(modules: Sequence[nn.Module]) -> list[nn.Parameter]:
    """All of them, in order."""
    return [p for module in modules for p in module.parameters()]


def levels(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Values of alpha and of sigma at i / N, i = 0..N: of the paper's multiplied 1 - beta, clean at 0."""
    i, n = np.arange(1, steps + 1), steps + 1
    whole = np.cumsum(
        np.append(-0.1 / n - 19.9 / (2 * n * n), -0.1 / n - 19.9 * (2 * i + 1) / (2 * n * n))
    )
    log = np.append(0.0, whole[1:] / 2)
    return np.exp(log), np.sqrt(-np.expm1(2 * log))
