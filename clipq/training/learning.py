"""How parameters move: AdamW, the learning rates of a step, and the length of a gradient.

Weights move by `lr`. Steps and offsets move by `step_lr` in shares of their size: for each of
their elements AdamW moves a share that begins at 0, and the element is its first value plus the
share times its first size. So steps of 0.001 and of 3 learn at the same pace, and epsilon means
the same for both. AdamW is Loshchilov & Hutter's (2019, algorithm 2) as torch has it, with betas of
0.9 and 0.999 and an epsilon of 1e-8, of shares 1e-12: LSQ makes their gradients small on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from clipq.training_settings import TrainingSettings

__all__ = ["Learning", "rate_at"]

_MOMENTS = ("exp_avg", "exp_avg_sq")


def rate_at(step: int, settings: TrainingSettings) -> float:
    """Return the share of the largest learning rate that the step after `step` steps has.

    It rises in a line over the first `warmup` of the steps, whose first has already a part of it,
    then falls by half a cosine, which reaches zero where the training ends.

    >>> settings = TrainingSettings(steps=8, warmup=0.5)
    >>> [round(rate_at(step, settings), 3) for step in range(8)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    rising = math.ceil(settings.warmup * settings.steps)
    if step < rising:
        return (step + 1) / rising
    return (1 + math.cos(math.pi * (step - rising) / (settings.steps - rising))) / 2


class Learning:
    """What is learnt, and how far AdamW is with it.

    Args:
        weights: parameters by name, that `lr` and `decay` are of.
        steps: parameters by name, that `step_lr` is of; none of them is sharded.
        settings: the recipe.

    >>> step = nn.Parameter(torch.tensor([0.01, 4.0]))
    >>> learning = Learning({}, {"s": step}, TrainingSettings(step_lr=0.5, warmup=0.0, clip=1e6))
    >>> step.grad = torch.tensor([-3.0, 20.0])
    >>> length = learning.move(0)
    >>> [round(value, 5) for value in step.tolist()]  # half of its size up, half of it down
    [0.015, 2.0]
    """

    def __init__(
        self,
        weights: Mapping[str, nn.Parameter],
        steps: Mapping[str, nn.Parameter],
        settings: TrainingSettings,
    ) -> None:
        self._weights, self._steps, self._settings = dict(weights), dict(steps), settings
        self._first = {name: step.detach().clone() for name, step in steps.items()}
        self._sizes = {name: _size(first) for name, first in self._first.items()}
        self._shares = {
            name: nn.Parameter(torch.zeros_like(step)) for name, step in self._steps.items()
        }
        self._adam = torch.optim.AdamW(
            [
                {"params": list(self._weights.values()), "weight_decay": settings.decay},
                {"params": list(self._shares.values()), "weight_decay": 0.0, "eps": 1e-12},
            ]
        )

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield all of them, by name: weights, then steps."""
        yield from self._weights.items()
        yield from self._steps.items()

    def forget_gradients(self) -> None:
        """Begin a step."""
        for _, parameter in self.parameters():
            parameter.grad = None

    def move(self, done: int) -> float:
        """Take one step along the gradients, cut to the recipe's largest length where longer.

        Args:
            done: steps done before.

        Returns:
            The length of the gradient, of weights and shares. Where it is not finite, nothing was
            moved.
        """
        for parameter in self._weights.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for name, share in self._shares.items():
            slope = self._steps[name].grad
            share.grad = torch.zeros_like(share) if slope is None else slope * self._sizes[name]
        moved = [*self._weights.values(), *self._shares.values()]
        length = _length([each.grad for each in moved if each.grad is not None])
        if not math.isfinite(length):
            return length
        if (cut := self._settings.clip / (length + 1e-6)) < 1:
            for each in moved:
                if each.grad is not None:
                    each.grad.mul_(cut)
        rate = rate_at(done, self._settings)
        for group, largest in zip(
            self._adam.param_groups, (self._settings.lr, self._settings.step_lr), strict=True
        ):
            group["lr"] = largest * rate
        self._adam.step()
        self._place()
        return length

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return everything that the next step depends on, whole where it is sharded."""
        found: dict[str, torch.Tensor] = {}
        for name, weight in self._weights.items():
            found[f"weight/{name}"] = _whole(weight)
            found |= self._moments(name, weight)
        for name, share in self._shares.items():
            found |= {f"share/{name}": share, f"first/{name}": self._first[name]}
            found |= self._moments(name, share)
        return {name: tensor.detach() for name, tensor in found.items()}

    def learnt(self) -> dict[str, torch.Tensor]:
        """Return the parameters by name, whole where they are sharded."""
        return {name: _whole(parameter).detach() for name, parameter in self.parameters()}

    def restore(self, tensors: Mapping[str, torch.Tensor], done: int) -> None:
        """Take up what `tensors` returned after so many steps."""
        with torch.no_grad():
            for name, weight in self._weights.items():
                _fill(weight, tensors[f"weight/{name}"])
            for name, share in self._shares.items():
                share.copy_(tensors[f"share/{name}"])
                self._first[name] = tensors[f"first/{name}"].to(share.device)
                self._sizes[name] = _size(self._first[name])
        if done:
            for name, parameter in (*self._weights.items(), *self._shares.items()):
                state = {kind: torch.zeros_like(parameter) for kind in _MOMENTS}
                for kind, values in state.items():
                    _fill(values, tensors[f"{kind}/{name}"])
                self._adam.state[parameter] = {"step": torch.tensor(float(done)), **state}
        self._place()

    def set(self, learnt: Mapping[str, torch.Tensor]) -> None:
        """Give the parameters values, such as those of the best step; the training is over."""
        with torch.no_grad():
            for name, parameter in self.parameters():
                _fill(parameter, learnt[name])

    def _moments(self, name: str, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
        state = self._adam.state.get(parameter, {})
        return {f"{kind}/{name}": _whole(state[kind]) for kind in _MOMENTS if kind in state}

    def _place(self) -> None:
        """Let steps be what their shares say."""
        with torch.no_grad():
            for name, step in self._steps.items():
                step.copy_(self._first[name] + self._sizes[name] * self._shares[name])


def _size(first: torch.Tensor) -> torch.Tensor:
    """Return how large each element is: where it is zero, the mean of its tensor; else 1."""
    sizes = first.abs()
    mean = sizes.mean()
    return torch.where(sizes > 0, sizes, torch.where(mean > 0, mean, torch.ones_like(mean)))


def _length(gradients: list[torch.Tensor]) -> float:
    """Return the length of all of them together; torch takes sharded ones apart from others."""
    kinds: dict[type, list[torch.Tensor]] = {}
    for gradient in gradients:
        kinds.setdefault(type(gradient), []).append(gradient)
    lengths = (float(_whole(torch.nn.utils.get_total_norm(some))) for some in kinds.values())
    return math.hypot(*lengths)


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor itself, or all of one that is sharded over processes."""
    full = getattr(tensor, "full_tensor", None)
    return tensor if full is None else full()


def _fill(place: torch.Tensor, values: torch.Tensor) -> None:
    """Copy whole values into a tensor, which may be sharded."""
    mesh = getattr(place, "device_mesh", None)
    if mesh is None:
        place.copy_(values)
        return
    from torch.distributed.tensor import distribute_tensor

    place.copy_(distribute_tensor(values.to(place.device), mesh, place.placements))  # type: ignore[attr-defined]
