"""The registry of backends: a name and how to make one. Libraries are imported when their backend is made."""

from typing import TYPE_CHECKING

from interp_unlearn.errors import BackendError
from interp_unlearn.interventions.backends.protocol import Backend, BackendFactory
from interp_unlearn.models.architecture import Architecture

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Backend", "BackendFactory", "check_backend", "make_backend", "register"]

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


def make_backend(
    name: str, hf: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", architecture: Architecture
) -> Backend:
    """Make the backend of that name for a model.

    Raises:
        BackendError: the name is unknown, or the backend does not take this model.
    """
    check_backend(name)
    return _factories[name](hf, tokenizer, architecture)


def _torch(hf: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", architecture: Architecture) -> Backend:
    from interp_unlearn.interventions.backends.torch_hooks import TorchBackend

    return TorchBackend(hf, architecture)


def _transformer_lens(
    hf: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", architecture: Architecture
) -> Backend:
    from interp_unlearn.interventions.backends.transformer_lens import TransformerLensBackend

    return TransformerLensBackend(hf, tokenizer, architecture)


def _nnsight(hf: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", architecture: Architecture) -> Backend:
    from interp_unlearn.interventions.backends.nnsight import NNsightBackend

    return NNsightBackend(hf, architecture)


register("torch", _torch)
register("transformer_lens", _transformer_lens)
register("nnsight", _nnsight)
