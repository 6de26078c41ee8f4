"""Quantised weights: which kinds can be read and edited, and that none of them can be trained."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from interp_unlearn.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor

HOSTED = "interp_unlearn_hosted"
"""Attribute of the parameters of a model that stands for one which is hosted elsewhere."""
SUPPORTED = ("bitsandbytes",)
"""Quantisation methods, in the words of config.json, whose activations and hashes are tested: 8 and 4 bit."""

PACKING = "support_avx512bf16_for_cpu"
"""Attribute by which a 4-bit layer of bitsandbytes knows whether to repack its weights for the CPU it finds."""


def quantisation_of(model: nn.Module) -> str | None:
    """Name of the method a model's weights are quantised with; None if they are plain numbers."""
    if getattr(model, "is_quantized", False):
        stated: Any = getattr(model.config, "quantization_config", None)
        method = stated.get("quant_method") if isinstance(stated, Mapping) else getattr(stated, "quant_method", None)
        return str(getattr(method, "value", method))
    if any(type(module).__module__.startswith(("torch.ao.nn", "torchao.")) for module in model.modules()):
        return "torch.ao"
    return None


def check_quantisation(model: nn.Module) -> None:
    """Refuse weights in a form that was never tried.

    Raises:
        CheckpointError: they are quantised by another method than bitsandbytes.
    """
    method = quantisation_of(model)
    if method is not None and method not in SUPPORTED:
        raise CheckpointError(
            f"{type(model).__name__} is quantised with {method}, which is not supported: its weights cannot be hashed "
            f"and its activations were never compared; load it unquantised, or with {' or '.join(SUPPORTED)}"
        )


def keep_codes(model: nn.Module) -> None:
    """Have 4-bit layers compute from the codes they were loaded with, on every processor.

    In the first pass of an evaluation on a CPU that multiplies bfloat16 itself, bitsandbytes would replace codes and
    scales by a rounded form of its own, and compute in bfloat16 whatever was asked for: the weights' hash and every
    activation would depend on the processor and on whether the model had been used before.

    Raises:
        CheckpointError: that has happened already; what was rounded cannot be brought back.
    """
    for name, module in model.named_modules():
        if hasattr(module, PACKING):
            if getattr(getattr(module.weight, "quant_state", None), "packing_format_for_cpu", False):
                raise CheckpointError(
                    f"bitsandbytes has repacked {name} and rounded its scales in a forward pass on this CPU: load the "
                    "model again and wrap it before its first pass"
                )
            setattr(module, PACKING, False)


def check_trainable(parameters: "Mapping[str, Tensor]") -> None:
    """Refuse parameters that hold codes instead of numbers, or that are not here, which no gradient step can change.

    Raises:
        ConfigError: there is one.
    """
    for name, parameter in parameters.items():
        if getattr(parameter, HOSTED, False):
            raise ConfigError(f"{name} is not here: the model is hosted elsewhere and can only be read; load it")
        # The codes of 4-bit weights may be stored in a floating-point format.
        if not parameter.is_floating_point() or type(parameter).__module__.startswith("bitsandbytes"):
            raise ConfigError(
                f"{name} is quantised ({type(parameter).__name__}, {parameter.dtype}) and cannot be used as a matrix "
                "of numbers; load the model unquantised"
            )
