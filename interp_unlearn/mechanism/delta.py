"""What a run changed in the weights, as something to measure, to take apart, to add up and to apply elsewhere."""

from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp_unlearn.artifacts import read_tensors, write_tensors
from interp_unlearn.errors import ArtifactError, ConfigError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.mechanism.places import GroupKind, tensor_groups
from interp_unlearn.mechanism.weights import Weights, changed_tensors, swapped, tensors_of

if TYPE_CHECKING:
    import pandas as pd

_KIND = "weight_delta"


@dataclass(frozen=True, eq=False)
class WeightDelta:
    """Changed minus original, by tensor; tensors that did not change are left out (Ilharco et al. 2023, 2212.04089).

    Differences are kept one width above the weights (float64 for float32, float32 for half precision), so that the
    delta of two models, added to the first, gives the second exactly but where an element grew or shrank by a factor of
    over a hundred million (over ten thousand in bfloat16).

    Attributes:
        changes: by the names of `named_parameters`; cannot be written to.
    """

    changes: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        for name, change in self.changes.items():
            if not bool(torch.isfinite(change).all()):
                raise ConfigError(f"{name}: the change holds infinite values or NaN; one of the models is damaged")
        object.__setattr__(self, "changes", MappingProxyType(dict(self.changes)))

    @classmethod
    def between(cls, original: Weights, changed: Weights) -> "WeightDelta":
        """The change from one model, checkpoint or mapping of tensors to another.

        Raises:
            ConfigError: names, shapes or dtypes differ, nothing does, or a difference is not finite.
            CheckpointError: a checkpoint cannot be read.
        """
        pairs = changed_tensors(original, changed).items()
        return cls(
            {name: after.to(_wider(after.dtype)) - before.to(_wider(after.dtype)) for name, (before, after) in pairs}
        )

    @cached_property
    def norm(self) -> float:
        """Frobenius norm over all tensors."""
        return sum(self._squares.values()) ** 0.5

    def __add__(self, other: "WeightDelta") -> "WeightDelta":
        """The change of both, tensor by tensor."""
        shared = self.changes.keys() & other.changes.keys()
        both = {name: self.changes[name] + other.changes[name].to(self.changes[name].device) for name in sorted(shared)}
        return WeightDelta({**self.changes, **other.changes, **both})

    def restricted(self, tensors: Collection[str]) -> "WeightDelta":
        """The change of some tensors only; names that did not change are ignored."""
        return WeightDelta({name: change for name, change in self.changes.items() if name in tensors})

    def norms(self, model: HookedModel, kinds: Sequence[GroupKind] = ("layer", "part")) -> "pd.DataFrame":
        """How large the change is by place. Caveat: size is not effect; the optimiser sets much of it.

        Args:
            model: any model of the architecture; it says where each tensor sits.
            kinds: ways to group tensors.

        Returns:
            One row a group: kind, group, layer, part, n_tensors (that changed), norm (Frobenius), relative (to the norm
            of the same tensors in `model`, unchanged ones included), energy (share of the squared norm of the whole).

        Raises:
            ConfigError: the model has not all the tensors.
        """
        import pandas as pd

        weights = tensors_of(model)
        _check_known(self, weights)
        sizes = {name: float(tensor.double().square().sum()) for name, tensor in weights.items()}
        rows: list[dict[str, object]] = []
        for group in tensor_groups(model, kinds):
            square = sum(self._squares.get(name, 0.0) for name in group.tensors)
            whole = sum(sizes[name] for name in group.tensors)
            rows.append(
                {
                    "kind": group.kind,
                    "group": group.name,
                    "layer": group.layer,
                    "part": group.part,
                    "n_tensors": len(group.tensors & self.changes.keys()),
                    "norm": square**0.5,
                    "relative": (square / whole) ** 0.5 if whole > 0 else float("nan"),
                    "energy": square / self.norm**2 if self.norm > 0 else float("nan"),
                }
            )
        return pd.DataFrame(rows).astype({"layer": "Int64"})

    def to_frame(self) -> "pd.DataFrame":
        """One row a changed tensor: tensor, elements, norm."""
        import pandas as pd

        rows = [
            {"tensor": name, "elements": change.numel(), "norm": self._squares[name] ** 0.5}
            for name, change in self.changes.items()
        ]
        return pd.DataFrame(rows, columns=["tensor", "elements", "norm"])

    def save(self, path: str | Path) -> None:
        """Write the changes as one safetensors file."""
        write_tensors(path, self.changes, {"kind": _KIND})

    @classmethod
    def load(cls, path: str | Path) -> "WeightDelta":
        """Read what `save` wrote.

        Raises:
            ArtifactError: the file is missing, damaged, or holds something else.
        """
        changes, metadata = read_tensors(path)
        if metadata.get("kind") != _KIND:
            raise ArtifactError(f"{path}: holds no weight delta; expected a file written by WeightDelta.save")
        return cls(changes)

    @cached_property
    def _squares(self) -> dict[str, float]:
        return {name: float(change.double().square().sum()) for name, change in self.changes.items()}


@contextmanager
def applied(
    model: HookedModel, delta: WeightDelta, scale: float = 1.0, tensors: Collection[str] | None = None
) -> Generator[None]:
    """Inside the block the delta is added to the model's weights; afterwards they are as before, bit for bit.

    Args:
        model: the original, or another of its architecture.
        delta: what is added.
        scale: factor on it; -1 undoes it on the model that it leads to, up to rounding.
        tensors: those it is added to; None for all.

    Raises:
        ConfigError: the model has not all the tensors, or of other shapes.
        BackendError: the model's backend cannot follow a change of the weights.
    """
    if tensors is not None:
        delta = delta.restricted(tensors)
    weights = tensors_of(model)
    _check_known(delta, weights)
    values: dict[str, Tensor] = {}
    for name, change in delta.changes.items():
        weight = weights[name]
        values[name] = (weight.to(change.dtype) + scale * change.to(weight.device)).to(weight.dtype)
    with swapped(model, values):
        yield


def _check_known(delta: WeightDelta, weights: Mapping[str, Tensor]) -> None:
    for name, change in delta.changes.items():
        if name not in weights or weights[name].shape != change.shape:
            there = tuple(weights[name].shape) if name in weights else "no such tensor"
            raise ConfigError(
                f"the delta changes {name} of shape {tuple(change.shape)}, the model has {there}; give a model of the "
                "architecture that the delta was taken from"
            )


def _wider(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype.itemsize < 4 else torch.float64
