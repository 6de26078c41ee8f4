"""What a run will take, said before it is begun: from shapes alone, no weights are loaded."""

import time
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from interp_unlearn.artifacts import write_json
from interp_unlearn.interventions.prefix import first_trained_block
from interp_unlearn.models import Architecture, parameters_by_role, resolve_architecture
from interp_unlearn.models.loading import keep_blocks, load_config
from interp_unlearn.unlearning.config import AdversaryConfig, ForkConfig, UnlearnConfig
from interp_unlearn.unlearning.corpora import Corpora, TokenCorpus
from interp_unlearn.unlearning.objective import Objective

if TYPE_CHECKING:
    import pandas as pd

LOOKED_AT = 16
"""Batches of a corpus whose padded size is averaged."""
SAVED_WIDTHS = (12, 4)
"""Numbers that autograd keeps of a token in a block, in widths of the stream and of the MLP: reckoned for a Llama."""
MOMENTS = {"adamw": 2, "rmsprop": 1, "sgd": 0}


@dataclass(frozen=True)
class RunEstimate:
    """Sizes in bytes, times in seconds.

    Attributes:
        trained: names of the tensors that will be trained.
        trained_numbers: numbers in them.
        weights: of the model, or of the part that is loaded.
        reference: original values of the trained tensors.
        optimizer: float32 masters and moments.
        gradients: of the trained tensors, forget and retain apart.
        attacker: copies of all weights, their gradients and moments, where there is an adversary.
        activations: kept for the backward pass, and logits.
        prefix_cache: streams kept over epochs.
        disk: of the saved model.
        step_seconds: of one update, at the measured speed of one large matrix product in this dtype on this device.
        seconds: of the whole run.
    """

    trained: tuple[str, ...]
    trained_numbers: int
    weights: int
    reference: int
    optimizer: int
    gradients: int
    attacker: int
    activations: int
    prefix_cache: int
    disk: int
    step_seconds: float
    seconds: float

    @property
    def memory(self) -> int:
        """All of it at its peak."""
        parts = (self.weights, self.reference, self.optimizer, self.gradients, self.attacker, self.activations)
        return sum(parts) + self.prefix_cache

    def to_frame(self) -> "pd.DataFrame":
        """One row a part: part, gigabytes (10^9 bytes); the sum is the peak."""
        import pandas as pd

        names = ("weights", "reference", "optimizer", "gradients", "attacker", "activations", "prefix_cache")
        rows = [{"part": name, "gigabytes": getattr(self, name) / 1e9} for name in names]
        return pd.DataFrame([*rows, {"part": "memory at its peak", "gigabytes": self.memory / 1e9}])

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        write_json(path, asdict(self) | {"memory": self.memory})


def estimate_run(
    path: str | Path,
    objective: Objective,
    corpora: Corpora,
    config: UnlearnConfig,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    first_blocks: int | None = None,
) -> RunEstimate:
    """Time, memory and disk of `unlearn`, without loading the model.

    Caveat: a sum of parts from shapes, and a time from one matrix product; `python -m benchmarks unlearning_8b` sets it
    beside a run. Sampling of contexts and callbacks are not in it.

    Args:
        path: a directory in Hugging Face layout, or a hub id.
        objective: says how deep passes go.
        corpora: the run's texts, tokenised.
        config: of the run.
        dtype: of the weights; None takes what config.json states.
        device: where it will run; its speed is measured.
        first_blocks: loads these alone.

    Raises:
        CheckpointError: there is no config that can be read.
        ConfigError: a role matches nothing.
    """
    model, stored = _shell(path, dtype, first_blocks)
    architecture = resolve_architecture(model)
    size = stored.itemsize
    parameters = dict(model.named_parameters())
    trained = parameters if config.roles is None else parameters_by_role(model, config.roles, config.layers)
    numbers = sum(parameter.numel() for parameter in trained.values())
    if config.lora is not None:
        numbers = sum(config.lora.rank * sum(parameter.shape) for parameter in trained.values())
    every = sum(parameter.numel() for parameter in parameters.values())
    half = size < 4
    deepest = architecture.n_layers
    logits = objective.needs_logits or (objective.retains and (config.kl_weight > 0 or config.nll_weight > 0))
    if not logits and objective.layers:
        deepest = max(objective.layers) + 1
    first = first_trained_block(architecture, list(trained.values()))
    limit = config.max_length or architecture.context_length
    forget = objective.stacks * _padded_tokens(objective.corpus(corpora), config, limit)
    retain = 0 if corpora.retain is None or not objective.retains else _padded_tokens(corpora.retain, config, limit)
    costs = _Costs(architecture, first, deepest, logits)
    work = costs.update(forget, retain, objective, config, numbers).times(config.accumulation)
    adversary = objective.adversary(config)
    attacker = 0
    if adversary is not None:
        work = work.plus(costs.attack(forget, adversary))
        # Of a fork its own weights and gradients; else values, gradients and AdamW's moments.
        attacker = every * (max(size, 4) + size if isinstance(adversary, ForkConfig) else 4 * size)
    seconds = work.seconds_at(measured_speed(architecture.d_model, stored, torch.device(device)))
    width = SAVED_WIDTHS[0] * architecture.d_model + SAVED_WIDTHS[1] * costs.d_mlp
    kept = max(forget, retain) * size * width * max(0, deepest - first)
    vocabulary = int(model.config.get_text_config().vocab_size)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue, reportArgumentType]
    rows = [corpus for corpus in (objective.corpus(corpora), corpora.retain) if corpus is not None]
    return RunEstimate(
        trained=tuple(trained),
        trained_numbers=numbers,
        weights=every * size,
        reference=numbers * size,
        optimizer=numbers * 4 * (MOMENTS[config.optimizer] + (1 if half else 0)),
        gradients=2 * numbers * size + (numbers * 4 if half else 0),
        attacker=attacker,
        activations=kept + (3 * max(forget, retain) * vocabulary * 4 if logits else 0),
        prefix_cache=sum(min(len(row), limit or len(row)) for corpus in rows for row in corpus.rows)
        * architecture.d_model
        * size
        if config.cache_prefix
        else 0,
        disk=_stored_size(path) or every * size,
        step_seconds=seconds,
        seconds=config.steps * seconds,
    )


@dataclass(frozen=True)
class Products:
    """Floating-point operations of matrix products by kind, or how many of each kind a second allows.

    The kinds are apart because a processor may be a hundred times slower at one of them than at another (a CPU without
    instructions for bfloat16 at the gradients of inputs).

    Attributes:
        forward: of passes.
        inputs: of the gradients that are handed down.
        weights: of the gradients of matrices.
    """

    forward: float
    inputs: float
    weights: float

    def times(self, factor: float) -> "Products":
        """Each multiplied."""
        return Products(*(factor * value for value in astuple(self)))

    def plus(self, other: "Products") -> "Products":
        """Each added."""
        return Products(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def seconds_at(self, speed: "Products") -> float:
        """How long they take at a speed."""
        return sum(mine / theirs for mine, theirs in zip(astuple(self), astuple(speed), strict=True))


def measured_speed(width: int, dtype: torch.dtype, device: torch.device, least: float = 0.1) -> Products:
    """Floating-point operations a second of products like the model's own.

    Each kind is timed with more and more rows until one product takes `least` seconds or has 512 rows.
    """
    inner = min(max(64, width), 1024)
    matrix = torch.randn(4 * inner, inner, device=device).to(dtype)

    def product(kind: str, rows: int) -> float:
        inputs, slopes = (torch.randn(rows, n, device=device).to(dtype) for n in (inner, 4 * inner))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        left, right = {
            "forward": (inputs, matrix.T),
            "inputs": (slopes, matrix),
            "weights": (slopes.T, inputs),
        }[kind]
        torch.matmul(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    def speed(kind: str) -> float:
        rows, best = 4, 0.0
        while True:
            seconds = min(product(kind, rows) for _ in range(2))
            best = max(best, 2 * rows * inner * 4 * inner / seconds)
            if seconds >= least or rows >= 512:
                return best
            rows *= 2

    return Products(*(speed(kind) for kind in ("forward", "inputs", "weights")))


class _Costs:
    """Floating-point operations of passes, two for each weight and token; attention's own products are left out."""

    def __init__(self, architecture: Architecture, first: int, deepest: int, logits: bool) -> None:
        self._blocks = [_matrix_numbers(block) for block in architecture.blocks]
        self._first, self._deepest = first, deepest
        head = architecture.unembed
        self._head = _matrix_numbers(head) if logits and head is not None else 0
        shapes = [p.shape for p in architecture.mlp(architecture.blocks[0]).parameters() if p.ndim == 2]
        self.d_mlp = max(max(shape) for shape in shapes) if shapes else 4 * architecture.d_model

    def update(self, forget: int, retain: int, objective: Objective, config: UnlearnConfig, trained: int) -> Products:
        below, above = sum(self._blocks[: self._first]), sum(self._blocks[self._first : self._deepest]) + self._head
        total = Products(0.0, 0.0, 0.0)
        for tokens, compares in ((forget, objective.needs_original), (retain, retain > 0)):
            passes = below + above * (2 if compares else 1)
            total = total.plus(Products(passes, above, trained).times(2 * tokens))
        return total

    def attack(self, tokens: int, adversary: AdversaryConfig | ForkConfig) -> Products:
        whole = sum(self._blocks) + self._head
        passes = 2 if isinstance(adversary, ForkConfig) else adversary.steps + len(adversary.gradient_steps)
        return Products(whole, whole, whole).times(2 * tokens * passes)


def _shell(path: str | Path, dtype: torch.dtype | None, first_blocks: int | None) -> tuple[nn.Module, torch.dtype]:
    """The model's modules without memory behind them, and the dtype its weights will have."""
    from transformers import AutoModel, AutoModelForCausalLM

    config: Any = load_config(path)
    if first_blocks is not None:
        keep_blocks(config, first_blocks)
    stated = dtype or getattr(config.get_text_config(), "dtype", None) or torch.float32
    with torch.device("meta"):
        model = (AutoModelForCausalLM if first_blocks is None else AutoModel).from_config(config)
    return model, stated


def _matrix_numbers(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.ndim >= 2)


def _padded_tokens(corpus: TokenCorpus, config: UnlearnConfig, limit: int | None) -> int:
    """Tokens of a batch with its padding, cut as for the run, averaged over the first batches."""
    sizes: list[int] = []
    for step in range(LOOKED_AT):
        rows: Sequence[int] = corpus.scheduled(config.batch_size, step, config.seed, "forget")
        longest = max(len(corpus.rows[row]) for row in rows)
        sizes.append(len(rows) * (longest if limit is None else min(longest, limit)))
    return round(sum(sizes) / len(sizes))


def _stored_size(path: str | Path) -> int:
    folder = Path(path)
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder.is_dir() else 0
