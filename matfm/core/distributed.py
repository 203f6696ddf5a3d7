"""Several processes as one: started by torchrun, each takes its share of every step."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from matfm.core.acceleration import repeated_blocks
from matfm.core.process import started_processes
from matfm.errors import MatfmError

Result = TypeVar("Result")

REMEDY_MUON = "optimizer.method muon updates whole matrices, which shard fsdp splits; use shard ddp, or adamw"


@dataclass(frozen=True)
class Ranks:
    """Which process this is, and of how many. With one process every method gives back what it got."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def total(self, tensor: Tensor) -> Tensor:
        """Sum over the processes."""
        if self.world == 1:
            return tensor
        # nccl knows device memory only.
        summed = tensor.to("cuda" if dist.get_backend() == "nccl" else tensor.device, copy=True)
        dist.all_reduce(summed)
        return summed.to(tensor.device)

    def from_first(self, value: Any) -> Any:
        """The first process's value (picklable)."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def every(self, value: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of all processes, whose names differ."""
        if self.world == 1:
            return value
        gathered: list[dict[str, Tensor]] = [{}] * self.world
        dist.all_gather_object(gathered, value)
        return {name: tensor for part in gathered for name, tensor in part.items()}

    def in_order(self, work: Callable[[], Result]) -> Result:
        """Let the first process do its work (and write its files) before the others do theirs."""
        if not self.first:
            self.wait()
        result = work()
        if self.first:
            self.wait()
        return result

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier()


def current_ranks() -> Ranks:
    """Of the process group, if there is one."""
    initialised = dist.is_available() and dist.is_initialized()
    return Ranks(dist.get_rank(), dist.get_world_size()) if initialised else Ranks()


@contextmanager
def process_group(device: torch.device) -> Iterator[Ranks]:
    """The group that torchrun's environment describes: gloo on CPUs, nccl on CUDA (one device a process)."""
    if started_processes() == 1 or dist.is_initialized():
        yield current_ranks()
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield current_ranks()
    finally:
        dist.destroy_process_group()


def share_of_step(ranks: Ranks, accumulate: int) -> range:
    """Which of the batches of a step this process takes: every `world`-th, without overlap.

    Raises:
        MatfmError: the batches of a step cannot be shared evenly.
    """
    if accumulate % ranks.world:
        raise MatfmError(
            f"accumulate is {accumulate}; {ranks.world} processes share the batches of a step evenly, "
            f"so set it to a multiple of {ranks.world} (and make tokens_per_batch smaller for the same step)"
        )
    return range(ranks.rank, accumulate, ranks.world)


def sharding(shard: str, ranks: Ranks) -> str:
    """none, ddp or fsdp, for `shard` as the user said it."""
    if ranks.world == 1:
        return "none"
    if shard == "none":
        raise MatfmError(f"shard is 'none' and there are {ranks.world} processes; choose auto, ddp or fsdp")
    return "ddp" if shard == "auto" else shard


def wrapped(module: nn.Module, kind: str, device: torch.device) -> nn.Module:
    """A module whose backward pass leaves the mean gradient over the processes. `kind` is what `sharding` gave."""
    if kind == "ddp":
        ids = [torch.cuda.current_device()] if device.type == "cuda" else None
        # Heads that a step does not use have no gradient.
        return nn.parallel.DistributedDataParallel(module, device_ids=ids, find_unused_parameters=True)
    if kind == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        for _, block in repeated_blocks(module):
            fully_shard(block, mesh=mesh)
        # Tied weights stay together in the outermost group.
        fully_shard(module, mesh=mesh)
    return module


def whole(tensor: Tensor) -> Tensor:
    """A tensor with its parts from all processes, which must all call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def laid_out_like(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, equal in all processes, on the device of `like` and split as it is."""
    value = value.to(like.device)
    if isinstance(like, DTensor) and value.shape == like.shape:
        return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
    return value
