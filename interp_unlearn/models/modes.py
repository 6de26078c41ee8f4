"""Train and eval mode: dropout would blur every comparison with the original."""

from collections.abc import Generator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(hf: nn.Module) -> Generator[None]:
    """Every module is in eval mode inside; afterwards each is in the mode it was in."""
    modes = [(module, module.training) for module in hf.modules()]
    try:
        hf.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training
