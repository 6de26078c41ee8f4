"""A model's weights, one tensor at a time: of a model in memory, of a run's reference, or of a checkpoint folder."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.models import resolve_architecture
from interp_unlearn.models.checkpoint_copy import checkpoint_folder, stored_tensors, weight_files
from interp_unlearn.models.loading import load_config
from interp_unlearn.models.parameters import roles_of_parameters
from interp_unlearn.sites import Site
from interp_unlearn.unlearning import Reference

if TYPE_CHECKING:
    from interp_unlearn.models import Architecture

_READS = {"mlp.down": "mlp_post", "attn.o": "z"}
"""Roles of matrices whose input is a site; they are those that write into the stream."""


@dataclass(frozen=True)
class Place:
    """Where a tensor belongs in the pass.

    Attributes:
        kind: "block"; "head" for the final norm and an untied head; "embedding" for all else.
        layer: of a block's tensor.
        role: of a block's matrix, as `models.parameters_by_role` names it.
        reads: the site that enters the matrix, if it is one.
        writes: whether the matrix adds to the stream what comes out of it, unchanged.
        transposed: the tensor holds [in, out], as GPT-2's do.
        order: sorts tensors by where the pass meets them.
    """

    kind: Literal["embedding", "block", "head"]
    layer: int | None
    role: str | None
    reads: Site | None
    writes: bool
    transposed: bool
    order: tuple[int, int, str]


class Weights(Mapping[str, Tensor]):
    """Tensors by name, each loaded when it is asked for.

    Args:
        loaders: what loads each.
        structure: a model with the same modules; its own weights are not looked at.
    """

    def __init__(self, loaders: Mapping[str, Callable[[], Tensor]], structure: nn.Module) -> None:
        self._structure = structure
        self._architecture: Architecture = resolve_architecture(structure)
        self._parameters = dict(structure.named_parameters(remove_duplicate=False))
        self._first = {id(parameter): name for name, parameter in structure.named_parameters()}
        self._loaders = self._told_once(loaders)
        self._blocks = self._architecture.path_of(self._architecture.blocks).rpartition(".")[2]
        self._roles = roles_of_parameters(structure)
        self._head = self._head_names()

    def __getitem__(self, name: str) -> Tensor:
        return self._loaders[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaders)

    def __len__(self) -> int:
        return len(self._loaders)

    def renamed_like(self, other: "Weights") -> "Weights":
        """The same under the names that another model has for them, where only the base model's prefix differs."""
        names = {name: other.own_name(name) or name for name in self._loaders}
        return Weights({names[name]: loader for name, loader in self._loaders.items()}, self._structure)

    def own_name(self, name: str) -> str | None:
        """A name as these weights have it, with or without the base model's prefix; None if there is none."""
        return next((candidate for candidate in self._candidates(name) if candidate in self._loaders), None)

    def place(self, name: str) -> Place:
        """Where a tensor belongs."""
        parameter = self._parameter_name(name) or name
        block = re.search(rf"(?:^|\.){re.escape(self._blocks)}\.(\d+)\.", name)
        if block is None:
            kind = "head" if parameter in self._head else "embedding"
            return Place(kind, None, None, None, False, False, (2 if kind == "head" else 0, 0, name))
        layer, role = int(block[1]), self._roles.get(parameter)
        reads = _READS.get(role or "")
        return Place(
            "block",
            layer,
            role,
            None if reads is None else Site(layer, reads),
            writes=reads is not None and not self._architecture.post_norms,
            transposed=self._is_transposed(parameter),
            order=(1, layer, name),
        )

    def _parameter_name(self, name: str) -> str | None:
        return next((candidate for candidate in self._candidates(name) if candidate in self._parameters), None)

    def _told_once(self, loaders: Mapping[str, Callable[[], Tensor]]) -> dict[str, Callable[[], Tensor]]:
        """The tensors without buffers that old checkpoints hold, and a tied one once: under its first name, which the
        checkpoint may not have used."""
        ignored: Iterable[str] = getattr(self._structure, "_keys_to_ignore_on_load_unexpected", None) or ()
        found: dict[str, Callable[[], Tensor]] = {}
        for name, loader in loaders.items():
            parameter = self._parameter_name(name)
            if parameter is None:
                if not any(re.search(pattern, name) for pattern in ignored):
                    found[name] = loader
                continue
            first = self._first[id(self._parameters[parameter])]
            if first == parameter:
                found[name] = loader
            elif not any(candidate in loaders for candidate in self._candidates(first)):
                found[first] = loader
        return found

    def _candidates(self, name: str) -> tuple[str, ...]:
        prefix = f"{getattr(self._structure, 'base_model_prefix', '')}."
        return name, f"{prefix}{name}", name.removeprefix(prefix)

    def _head_names(self) -> set[str]:
        """Names of the parameters that come after the blocks and are not the embedding's too."""
        after = [part for part in (self._architecture.final_norm, self._architecture.unembed) if part is not None]
        own = {id(p) for part in after for p in part.parameters()}
        own -= {id(p) for p in self._architecture.embed.parameters()}
        return {name for name, parameter in self._parameters.items() if id(parameter) in own}

    def _is_transposed(self, name: str) -> bool:
        if name not in self._parameters:
            return False
        return type(self._structure.get_submodule(name.rpartition(".")[0])).__name__ == "Conv1D"


def open_weights(
    changed: HookedModel | str | Path, original: HookedModel | Reference | str | Path
) -> tuple[Weights, Weights]:
    """The weights of both, under the same names where they are the same tensors.

    Raises:
        CheckpointError: a folder holds no safetensors files or no configuration.
        ConfigError: a reference was given without the model whose values it keeps.
    """
    if isinstance(original, Reference):
        if not isinstance(changed, HookedModel):
            raise ConfigError("a reference keeps values of a model in memory: give that model, not its folder")
        with original.original():
            kept = {name: tensor.detach().clone() for name, tensor in original.tensors.items()}
        current = original.tensors
        return _in_memory(changed.hf, current), _in_memory(changed.hf, kept)
    new, old = (_opened(source) for source in (changed, original))
    return new, old.renamed_like(new)


def changed_inputs(
    changed: HookedModel | str | Path, original: HookedModel | Reference | str | Path
) -> tuple[Site, ...]:
    """The sites that enter a matrix that differs, in the order of the pass; arguments as of `open_weights`."""
    new, old = open_weights(changed, original)
    sites = {name: new.place(name).reads for name in new if name in old}
    return tuple(sorted(site for name, site in sites.items() if site is not None and not new[name].equal(old[name])))


def _opened(source: HookedModel | str | Path) -> Weights:
    if isinstance(source, HookedModel):
        return _in_memory(source.hf, dict(source.hf.named_parameters()))
    return _stored(source)


def _in_memory(structure: nn.Module, tensors: Mapping[str, Tensor]) -> Weights:
    def load(name: str) -> Tensor:
        return tensors[name].detach().cpu()

    return Weights({name: partial(load, name) for name in tensors}, structure)


def _stored(folder: str | Path) -> Weights:
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM

    folder = checkpoint_folder(folder)
    files = weight_files(folder)
    with torch.device("meta"):  # modules without weights
        structure: nn.Module = AutoModelForCausalLM.from_config(load_config(folder), trust_remote_code=False)

    def load(file: Path, name: str) -> Tensor:
        with safe_open(file, framework="pt") as opened:
            return opened.get_tensor(name)

    return Weights({name: partial(load, file, name) for file in files for name in stored_tensors(file)}, structure)
