"""The registry of backends: a name and how to make one. Libraries are imported when their backend is made."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from interp_unlearn.errors import BackendError, ConfigError
from interp_unlearn.interventions.backends.protocol import Backend, BackendFactory
from interp_unlearn.models.architecture import Architecture

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Backend", "BackendFactory", "check_backend", "check_hosted", "make_backend", "register"]

_factories: dict[str, BackendFactory] = {}


def register(name: str, factory: BackendFactory) -> None:
    """Make a backend known under a name.

    Raises:
        BackendError: the name is taken.
    """
    if name in _factories:
        raise BackendError(f"a backend named {name!r} is registered already; choose another name")
    _factories[name] = factory


def check_backend(name: str) -> None:
    """Refuse a name that is not registered.

    Raises:
        BackendError: the name is unknown.
    """
    if name not in _factories:
        raise BackendError(f"unknown backend {name!r}; expected one of {', '.join(_factories)}")


def check_hosted(backend: str, device: object, *options: object) -> None:
    """Refuse what a hosted model cannot be told.

    Raises:
        ConfigError: it is given another backend or device, or one of the options is not None.
    """
    if backend != "nnsight" or str(device) != "cpu" or any(option is not None for option in options):
        raise ConfigError(
            f"remote needs the backend nnsight, got {backend}, and no dtype, device, device_map, first_blocks or "
            "revision: the server decides on these"
        )


def make_backend(
    name: str,
    hf: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    architecture: Architecture,
    remote: bool | str = False,
) -> Backend:
    """Make the backend of that name for a model; of a hosted one the one that reads it where it is.

    Raises:
        BackendError: the name is unknown, or the backend does not take this model.
    """
    check_backend(name)
    if remote:
        return _hosted(hf, tokenizer, architecture, remote)
    return _factories[name](hf, tokenizer, architecture)


def _hosted(
    hf: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", architecture: Architecture, remote: bool | str
) -> Backend:
    _require("nnsight", "nnsight")
    from interp_unlearn.interventions.backends.ndif import HostedBackend

    return HostedBackend(str(hf.name_or_path), tokenizer, architecture, remote)


def _torch(hf: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", architecture: Architecture) -> Backend:
    from interp_unlearn.interventions.backends.torch_hooks import TorchBackend

    return TorchBackend(hf, architecture)


def _transformer_lens(
    hf: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", architecture: Architecture
) -> Backend:
    _require("transformer_lens", "transformer-lens")
    from interp_unlearn.interventions.backends.transformer_lens import TransformerLensBackend

    return TransformerLensBackend(hf, tokenizer, architecture)


def _nnsight(hf: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", architecture: Architecture) -> Backend:
    _require("nnsight", "nnsight")
    from interp_unlearn.interventions.backends.nnsight import NNsightBackend

    return NNsightBackend(hf, architecture)


def _require(module: str, library: str) -> None:
    if find_spec(module) is None:
        raise BackendError(f"this backend needs {library}, which is not installed; install interp-unlearn[backends]")


register("torch", _torch)
register("transformer_lens", _transformer_lens)
register("nnsight", _nnsight)
