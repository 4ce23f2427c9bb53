"""One process or several: who computes which part of a batch, and how the parts come together.

A loss needs the features of the whole batch. Each process has its share of the rows through the
towers, all features are gathered, each process computes the same loss of all of them, and takes the
gradient of its own rows back through its towers. What torch's wrappers then average over N
processes is multiplied by N before, so that the sum remains: the gradient that one process has.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from clipq.errors import ClipqError, TrainingError

__all__ = ["World", "joined"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class World:
    """The processes that train together; by default there is one.

    Args:
        rank: of this process, from 0; the first writes files and speaks.
        size: how many there are.

    >>> World().share(np.arange(3)).tolist(), World(rank=1, size=2).share(np.arange(3)).tolist()
    ([0, 1, 2], [2, 0])
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def share(self, rows: np.ndarray) -> np.ndarray:
        """Return this process's rows; all have as many, some of the first again where needed."""
        each = -(-len(rows) // self.size)
        return np.resize(rows, each * self.size)[self.rank * each : (self.rank + 1) * each]

    def gather(self, part: torch.Tensor, count: int) -> torch.Tensor:
        """Return the first `count` rows of all parts; no gradient goes through."""
        if self.size == 1:
            return part[:count]
        parts = [torch.empty_like(part) for _ in range(self.size)]
        dist.all_gather(parts, part.contiguous())
        return torch.cat(parts)[:count]

    def spread(self, gradient: torch.Tensor, each: int) -> torch.Tensor:
        """Return the rows of a gradient that belong to this process, as its wrapper needs them.

        Args:
            gradient: (B, ...), of the features that `gather` returned.
            each: rows of this process's part; those it had only to make parts equal get zeros.
        """
        if self.size == 1:
            return gradient
        rows = gradient.new_zeros(each * self.size, *gradient.shape[1:])
        rows[: len(gradient)] = gradient
        return rows[self.rank * each : (self.rank + 1) * each] * self.size

    def average(self, parameters: list[nn.Parameter]) -> None:
        """Average gradients over the processes, of parameters that no wrapper looks after."""
        held = [each.grad for each in parameters if each.grad is not None]
        if self.size == 1 or not held:
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in held])
        dist.all_reduce(flat)
        flat /= self.size
        pieces = torch.split_with_sizes(flat, [gradient.numel() for gradient in held])
        for gradient, values in zip(held, pieces, strict=True):
            gradient.copy_(values.view_as(gradient))

    def once(self, do: Callable[[], T]) -> T:
        """Let the first process do something and tell the others what came out of it.

        Raises:
            ClipqError: it raised one; then all processes do.
        """
        if self.size == 1:
            return do()
        told: list[Any] = [None, None]
        if self.first:
            try:
                told[0] = do()
            except ClipqError as error:
                told[1] = error
        dist.broadcast_object_list(told)
        if told[1] is not None:
            raise told[1]
        result: T = told[0]
        return result

    def meet(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.barrier()

    def wrapped(self, towers: nn.Module, *, sharded: bool, whole: set[nn.Parameter]) -> nn.Module:
        """Return the towers as torch's own DDP, or FSDP2's `fully_shard`, holds them.

        Args:
            towers: what is called once per part.
            sharded: FSDP2: parameters, gradients and moments are divided among the processes.
            whole: parameters that are not sharded, such as scalars; see `average`.
        """
        if self.size == 1:
            return towers
        if not sharded:
            ddp = nn.parallel.DistributedDataParallel
            names = ("forward_sync_buffers", "broadcast_buffers")  # newer and older name
            known = inspect.signature(ddp).parameters
            # Frozen statistics are equal everywhere, and an objective may leave a tower out.
            options: dict[str, Any] = {next(name for name in names if name in known): False}
            wrapped: nn.Module = ddp(towers, find_unused_parameters=True, **options)
            return wrapped
        from torch.distributed.fsdp import fully_shard

        for block in _blocks(towers):
            fully_shard(block, ignored_params=whole & set(block.parameters()))
        fully_shard(towers, ignored_params=whole)
        return towers

    def no_sync(self, towers: nn.Module, *, last: bool) -> AbstractContextManager[None]:
        """Add up gradients of parts on this process until the last one."""
        if isinstance(towers, nn.parallel.DistributedDataParallel):
            context: AbstractContextManager[None] = nullcontext() if last else towers.no_sync()
            return context
        sync = getattr(towers, "set_requires_gradient_sync", None)
        if sync is not None:
            sync(last)
        return nullcontext()


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """Yield the processes that this one was started with: those of torchrun, or of the caller.

    Args:
        device: whose kind says how they talk: NCCL on CUDA, gloo elsewhere.

    Raises:
        TrainingError: torchrun's variables are there, and the processes cannot find each other.

    >>> with joined(torch.device("cpu")) as world:
    ...     world
    World(rank=0, size=1)
    """
    if dist.is_available() and dist.is_initialized():
        yield World(dist.get_rank(), dist.get_world_size())
        return
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield World()
        return
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']}, and the processes cannot be joined: {error}",
            hint="start all of them with torchrun, or unset WORLD_SIZE",
        ) from error
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def _blocks(towers: nn.Module) -> list[nn.Module]:
    """Return the modules that repeat, which is what is worth gathering one at a time."""
    return [
        block
        for module in towers.modules()
        if isinstance(module, nn.ModuleList)
        for block in module
        if any(True for _ in block.parameters())
    ]
