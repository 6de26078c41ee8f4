"""Plain Hugging Face passes of a tiny GPT-2 in float64, and formulas in numpy: what the tests of oracles compute with.

Nothing of the package is used here. The architecture is GPT-2's, for its layer norms follow the dtype; those of Llama's
family are float32 whatever the model's dtype.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from conftest import make_tokenizer
from torch import Tensor, nn

PAD, BOS = 0, 1


def content(ids: Tensor) -> np.ndarray:
    return ((ids != PAD) & (ids != BOS)).numpy()


def predicted(ids: Tensor) -> np.ndarray:
    """Which positions predict a token that counts: those before it."""
    return content(ids)[:, 1:]


@contextmanager
def added(model: nn.Module, layer: int, change: Callable[[Tensor], Tensor]) -> Generator[None]:
    """Change what a block puts out."""

    def hook(_: nn.Module, __: object, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    handle = model.get_submodule(f"transformer.h.{layer}").register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def passed(model: nn.Module, ids: Tensor) -> Any:
    return model(input_ids=ids, attention_mask=(ids != PAD).long(), output_hidden_states=True, use_cache=False)


@torch.no_grad()
def tokens(model: nn.Module, ids: Tensor, layer: int) -> np.ndarray:
    """The counted tokens after a block [token, d], in float64; of -1 the embedding of tokens, without their places."""
    kept: list[Tensor] = []

    def keep(h: Tensor) -> Tensor:
        kept.append(h)
        return h

    if layer < 0:
        kept.append(model.get_submodule("transformer.wte")(ids))
    else:
        with added(model, layer, keep):
            passed(model, ids)
    found = kept[0].numpy()
    assert found.dtype == np.float64
    return found[content(ids)]


@torch.no_grad()
def log_probabilities(model: nn.Module, ids: Tensor) -> np.ndarray:
    """Of the next token at every position but the last [row, pos, vocab], in float64."""
    logits = passed(model, ids).logits[:, :-1].numpy()
    assert logits.dtype == np.float64
    top = logits.max(-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))


def said(model: nn.Module, ids: Tensor) -> list[np.ndarray]:
    """Log-probability of the counted tokens of each row."""
    found, mask = log_probabilities(model, ids), predicted(ids)
    return [
        np.array([found[row, at, int(ids[row, at + 1])] for at in np.flatnonzero(mask[row])]) for row in range(len(ids))
    ]


def divergence(log_p: np.ndarray, log_q: np.ndarray, mask: np.ndarray) -> float:
    p, log_p, log_q = np.exp(log_p[mask]), log_p[mask], log_q[mask]
    return float((p * (log_p - log_q)).sum(-1).mean())


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def padded(texts: Sequence[str]) -> Tensor:
    rows = [[BOS, *make_tokenizer()(text)["input_ids"]] for text in texts]  # pyright: ignore[reportGeneralTypeIssues]
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows])


def at_head(hf: nn.Module, stream: np.ndarray) -> np.ndarray:
    """Log-probabilities of a GPT-2's own end, written out: layer norm, head, softmax."""
    weight, bias = (hf.get_parameter(f"transformer.ln_f.{part}").detach().numpy() for part in ("weight", "bias"))
    centred = stream - stream.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias
    logits = normed @ hf.get_parameter("lm_head.weight").detach().numpy().T
    return (
        logits
        - logits.max(-1, keepdims=True)
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1))[..., None]
    )


def unbiased_hsic(k: np.ndarray, m: np.ndarray) -> float:
    """Song et al. 2012, HSIC_1, with Gram matrices of diagonal 0."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    cross = k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k @ m).sum()
    return float((np.trace(k @ m) + cross) / (n * (n - 3)))
