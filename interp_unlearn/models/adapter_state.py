"""Which adapters of peft a model computes with: what no parameter says."""

from torch import nn


def adapter_state(model: nn.Module) -> list[tuple[str, str]]:
    """Which of peft's adapters are on, merged and how strong, by the path of each layer that has some."""
    names = ("active_adapters", "disable_adapters", "merged_adapters", "scaling")
    layers = [(path, module) for path, module in model.named_modules() if hasattr(module, "base_layer")]
    return [(path, repr([getattr(module, name, None) for name in names])) for path, module in layers]
