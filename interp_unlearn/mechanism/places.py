"""Where in a model each tensor sits: in which block and in which part of it, read off the module tree."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal, get_args

from torch import nn

from interp_unlearn.errors import ConfigError

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel

Part = Literal["embedding", "attention", "mlp", "norm", "unembedding"]
"""Parts of a model.

"norm" is also whatever else of a block is neither attention nor MLP, "embedding" also positions and whatever else lies
outside the blocks. A norm inside the attention (Qwen3) is attention; a head tied to the embedding is embedding.
"""

GroupKind = Literal["all", "layer", "up_to", "from", "part", "rest", "layer_part"]
"""Ways to group tensors.

"layer" is one block, or what lies before or behind the blocks; "up_to" and "from" are a block and all before or behind
it; "part" is one part in all blocks; "rest" is what is neither attention nor MLP; "layer_part" is one part of a block.
"""


@dataclass(frozen=True)
class TensorPlace:
    """The place of one tensor.

    Attributes:
        layer: its block, counted from 0; None outside the blocks.
        part: what it is part of.
    """

    layer: int | None
    part: Part

    @property
    def depth(self) -> float:
        """Order in which a pass reaches it: -1 before the blocks, the block, infinity behind them."""
        if self.layer is not None:
            return self.layer
        return -1 if self.part == "embedding" else math.inf


@dataclass(frozen=True)
class TensorGroup:
    """Tensors that are moved or measured together.

    Attributes:
        kind: how they were grouped.
        name: of the group, unlike that of any other: "layer 3", "up to 3", "from 3", "mlp", "layer 3 mlp".
        depth: the block that the group is about, -1 before the blocks, infinity behind them; None for a part or all.
        part: the part; None where the group has several.
        tensors: names as in `named_parameters`.
    """

    kind: GroupKind
    name: str
    depth: float | None
    part: Part | None
    tensors: frozenset[str]

    @property
    def layer(self) -> int | None:
        """The block; None outside the blocks."""
        return int(self.depth) if self.depth is not None and 0 <= self.depth < math.inf else None


def tensor_places(model: "HookedModel") -> dict[str, TensorPlace]:
    """The place of every parameter, by its name; tied parameters have one name and so one place.

    Raises:
        SiteError: a block has no attention or no MLP under a known name.
    """
    architecture = model.architecture
    places: dict[int, TensorPlace] = {}

    def put(module: nn.Module | None, layer: int | None, part: Part) -> None:
        for parameter in () if module is None else module.parameters():
            places.setdefault(id(parameter), TensorPlace(layer, part))

    put(architecture.embed, None, "embedding")  # before the head, which may be the same tensor
    for layer, block in enumerate(architecture.blocks):
        put(architecture.attention(block), layer, "attention")
        put(architecture.mlp(block), layer, "mlp")
        put(block, layer, "norm")
    put(architecture.final_norm, None, "norm")
    put(architecture.unembed, None, "unembedding")
    outside = TensorPlace(None, "embedding")
    return {name: places.get(id(parameter), outside) for name, parameter in model.hf.named_parameters()}


def tensor_groups(model: "HookedModel", kinds: Sequence[GroupKind]) -> list[TensorGroup]:
    """A model's tensors, grouped in each of the given ways; groups without a tensor are left out.

    Raises:
        ConfigError: there is no such way.
    """
    unknown = [kind for kind in kinds if kind not in get_args(GroupKind)]
    if unknown or not kinds:
        raise ConfigError(f"kinds: expected some of {', '.join(get_args(GroupKind))}, got {', '.join(kinds) or 'none'}")
    places = tensor_places(model)
    groups = [
        TensorGroup(kind, name, depth, part, frozenset(tensor for tensor, place in places.items() if holds(place)))
        for kind in kinds
        for name, depth, part, holds in _rules(kind, model.n_layers)
    ]
    return [group for group in groups if group.tensors]


_Rule = tuple[str, float | None, Part | None, Callable[[TensorPlace], bool]]


def _rules(kind: GroupKind, n_layers: int) -> Iterator[_Rule]:
    """Name, depth and part of each group of a kind, and whether a place belongs to it."""
    depths: list[float] = [-1, *range(n_layers), math.inf]
    parts: tuple[Part, ...] = get_args(Part)
    if kind == "all":
        yield "all", None, None, lambda place: True
    elif kind == "rest":
        yield "rest", None, None, lambda place: place.part not in ("attention", "mlp")
    elif kind == "part":
        for part in parts:
            yield part, None, part, lambda place, part=part: place.part == part
    elif kind == "layer":
        for depth in depths:
            name = {-1: "before blocks", math.inf: "behind blocks"}.get(depth, f"layer {depth}")
            yield name, depth, None, lambda place, depth=depth: place.depth == depth
    elif kind == "up_to":
        for depth in depths[:-1]:
            yield f"up to {_label(depth)}", depth, None, lambda place, depth=depth: place.depth <= depth
    elif kind == "from":
        for depth in depths[1:]:
            yield f"from {_label(depth)}", depth, None, lambda place, depth=depth: place.depth >= depth
    else:
        for layer, part in product(range(n_layers), parts):
            yield f"layer {layer} {part}", layer, part, lambda place, at=(layer, part): (place.layer, place.part) == at


def _label(depth: float) -> str:
    return {-1: "embedding", math.inf: "head"}.get(depth, str(depth))
