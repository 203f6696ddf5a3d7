"""The random numbers of a run: dropout's, and one stream for each place of a batch within a step."""

from __future__ import annotations

import torch
from torch import Tensor

from matfm.core.distributed import Ranks

_STRIDE = 1_000_003
"""Between the seeds of neighbouring streams."""


class RandomStates:
    """Random states of one process.

    The batch at place k of every step draws (masks, for example) from stream k, whichever process computes it:
    so the numbers do not depend on how many processes there are. Dropout draws from torch's own stream of each
    process.

    Args:
        seed: of the run; place 0 and the first process use it as it is.
        places: batches in a step.
        device: whose own stream is saved too, on CUDA.
        ranks: this process among the others.
    """

    def __init__(self, seed: int, places: int, device: torch.device, ranks: Ranks) -> None:
        self.device = device
        self.suffix = f".{ranks.rank}" if ranks.rank else ""
        self.streams = {
            place: torch.Generator().manual_seed(seed + _STRIDE * place)
            for place in range(ranks.rank, places, ranks.world)
        }
        if ranks.rank:
            torch.manual_seed(seed + _STRIDE * ranks.rank)

    def of_batch(self, place: int) -> torch.Generator:
        """The stream of a batch of the step."""
        return self.streams[place]

    def state_dict(self) -> dict[str, Tensor]:
        """Names differ from process to process."""
        states = {_stream_name(place): stream.get_state() for place, stream in self.streams.items()}
        states[f"torch{self.suffix}"] = torch.get_rng_state()
        if self.device.type == "cuda":
            states[f"cuda{self.suffix}"] = torch.cuda.get_rng_state(self.device)
        return states

    def load_state_dict(self, states: dict[str, Tensor]) -> None:
        """From the states of all processes; a process that was not there keeps its own stream for dropout."""
        for place, stream in self.streams.items():
            stream.set_state(states[_stream_name(place)])
        if f"torch{self.suffix}" in states:
            torch.set_rng_state(states[f"torch{self.suffix}"])
        if f"cuda{self.suffix}" in states and self.device.type == "cuda":
            torch.cuda.set_rng_state(states[f"cuda{self.suffix}"], self.device)


def _stream_name(place: int) -> str:
    return f"step.{place}" if place else "step"
