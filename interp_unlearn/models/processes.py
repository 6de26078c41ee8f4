"""Which process of how many this is, where `torchrun` started several, and what they tell each other."""

import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from interp_unlearn.errors import CheckpointError, ConfigError
from interp_unlearn.models.adapter_state import adapter_state

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")

PATIENCE = timedelta(days=2)
"""How long a process waits for another, whose shard or evaluation may take hours; torchrun ends all when one fails."""


@dataclass(frozen=True)
class Processes:
    """One of the processes that do a run together. With the defaults there is no other, and nothing is communicated.

    Attributes:
        rank: of this process, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ConfigError(f"processes: expected a rank from 0 to {self.size - 1}, got {self.rank}")

    @classmethod
    def of_torchrun(cls, device: str = "cpu") -> "Processes":
        """The processes that torchrun started, connected by accelerate; one alone where it was not torchrun.

        On "cuda" each process gets the GPU of its local rank as its current one.

        Raises:
            ConfigError: accelerate is not installed, or a GPU is named that all processes would share.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "LOCAL_RANK" not in os.environ:
            return cls()
        if ":" in device:
            raise ConfigError(f"device: under torchrun every process takes its own; got {device}, give cuda or cpu")
        try:
            from accelerate import PartialState
        except ImportError as error:
            raise ConfigError("several processes need accelerate; install interp-unlearn[devices]") from error
        state = PartialState(cpu=device == "cpu", timeout=PATIENCE)
        return cls(state.process_index, state.num_processes)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def own(self, items: Sequence[T]) -> Sequence[T]:
        """This process's share of something every process has the same list of."""
        return items[self.rank :: self.size]

    def wait(self) -> None:
        """Until every process has come here."""
        if self.size > 1:
            torch.distributed.barrier()

    @contextmanager
    def first_before_others(self) -> Generator[None]:
        """The first process runs the block alone, the others after it."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of the processes' tensors, of at least single precision while it is added up."""
        if self.size == 1:
            return tensor
        # NCCL adds up what is on a GPU alone.
        device = "cuda" if torch.distributed.get_backend() == "nccl" else tensor.device
        precision = tensor.dtype if tensor.element_size() >= 4 else torch.float32
        summed = tensor.detach().to(device, precision, copy=True)
        torch.distributed.all_reduce(summed)
        return summed.to(tensor)

    def of_first(self, value: T) -> T:
        """What the first process has; the others' values are dropped."""
        if self.size == 1:
            return value
        values: list[Any] = [value]
        torch.distributed.broadcast_object_list(values)
        return values[0]


ALONE = Processes()


def current() -> Processes:
    """The processes that are connected now, by whomever."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return ALONE
    return Processes(torch.distributed.get_rank(), torch.distributed.get_world_size())


def is_sharded(module: nn.Module) -> bool:
    """Whether FSDP2 holds a module's parameters in parts."""
    return hasattr(module, "set_requires_gradient_sync")


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its elements; of a sharded one they are gathered, for which every process has to call."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def sharded_like(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor that every process has, cut as `like` is; itself where that is whole."""
    if not hasattr(like, "full_tensor"):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def whole_tensors(named: Iterable[tuple[str, Tensor]], processes: Processes) -> dict[str, Tensor]:
    """Tensors gathered one by one onto the CPU of the first process; the others get none. Tied ones stay tied."""
    found: dict[int, Tensor] = {}
    names: dict[str, Tensor] = {}
    for name, tensor in named:
        if id(tensor) not in found:
            gathered = whole(tensor.detach())
            found[id(tensor)] = gathered.cpu() if processes.is_first else gathered.new_empty(0)
        if processes.is_first:
            names[name] = found[id(tensor)]
    return names


def save_weights(hf: "PreTrainedModel", path: str | Path) -> bool:
    """Write a model without its tokenizer; of a sharded one the first process does, and every one has to call.

    Returns:
        Whether this process has written it.

    Raises:
        CheckpointError: adapters are on it.
    """
    if adapter_state(hf):
        raise CheckpointError(
            "adapters are on the model: they alone would be written, or weights under names that nothing loads; merge "
            "them first (merge_and_unload of peft), or save them by peft and the base model by itself"
        )
    if not is_sharded(hf):
        hf.save_pretrained(path)
        return True
    processes = current()
    weights = whole_tensors(hf.state_dict(keep_vars=True).items(), processes)
    if processes.is_first:
        hf.save_pretrained(path, state_dict=weights)
    return processes.is_first
