"""The blocks below the first one that is trained, computed once for a batch and shared by all passes over it.

An original and the model being trained differ only from the first trained block on. Below it both have the same stream,
so that the reference pass and the student's pass need it once. The blocks are passed over, not cut out: the model's own
forward builds masks and positions as ever, and hooks, early exit and every architecture work as they did.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions.backends.torch_hooks import output_tensor, with_tensor
from interp_unlearn.interventions.forward_pass import ForwardPass
from interp_unlearn.models.architecture import Architecture
from interp_unlearn.models.batches import TokenBatch
from interp_unlearn.sites import Site

Row = tuple[int, ...]


class PrefixCache:
    """Streams of single rows, kept over epochs on the CPU: a row that comes again needs no block below at all.

    Attributes:
        streams: [pos, d_model] of each row of token ids, without padding.
    """

    def __init__(self) -> None:
        self.streams: dict[Row, Tensor] = {}

    def get(self, batch: TokenBatch) -> Tensor | None:
        """The stream of a batch, zero at padding; None unless all its rows are there."""
        rows = _rows(batch)
        if not all(row in self.streams for row in rows):
            return None
        first = self.streams[rows[0]]
        stream = first.new_zeros((*batch.input_ids.shape, first.shape[-1]))
        for index, row in enumerate(rows):
            stream[index, batch.mask[index].cpu()] = self.streams[row]
        return stream.to(batch.device)

    def put(self, batch: TokenBatch, stream: Tensor) -> None:
        """Keep the rows of a batch."""
        for index, row in enumerate(_rows(batch)):
            if row not in self.streams:
                self.streams[row] = stream[index, batch.mask[index]].cpu()


class SharedPrefix:
    """What passes over the same batch share while weights below a block do not change.

    Args:
        architecture: of the model.
        n_blocks: blocks below the first one that is trained.
        cache: streams kept over epochs.

    Raises:
        ConfigError: there are not that many blocks.
    """

    def __init__(self, architecture: Architecture, n_blocks: int, cache: PrefixCache | None = None) -> None:
        if not 0 <= n_blocks <= architecture.n_layers:
            raise ConfigError(f"n_blocks must lie between 0 and {architecture.n_layers}, got {n_blocks}")
        self.n_blocks = n_blocks
        self._blocks: list[nn.Module] = list(architecture.blocks)[:n_blocks]
        self._cache = cache
        self._kept: list[tuple[TokenBatch, Any]] = []
        self._template: Any = None

    @contextmanager
    def used(self, batch: TokenBatch, forward_pass: ForwardPass) -> Generator[None]:
        """Pass over the blocks if their output is known for this batch; otherwise run them and remember it.

        A pass that reads or edits anything below its end, or ends there, runs as it always does.
        """
        if not self._blocks or any(self._is_below(site) for site in forward_pass.sites):
            yield
            return
        found = self._find(batch)
        if found is None:
            handle = self._blocks[-1].register_forward_hook(self._keeper(batch))
            try:
                yield
            finally:
                handle.remove()
            return
        replaced = [(block, block.__dict__.get("forward")) for block in self._blocks]
        try:
            for block in self._blocks:
                block.forward = lambda *args, **kwargs: found
            yield
        finally:
            for block, forward in replaced:
                if forward is None:
                    del block.__dict__["forward"]
                else:  # an offloading hook of accelerate
                    block.forward = forward

    def forget(self) -> None:
        """Let go of the batches; the cache, if there is one, keeps their rows."""
        self._kept.clear()

    def _is_below(self, site: Site) -> bool:
        return site.component == "embed" or (site.layer is not None and site.layer < self.n_blocks)

    def _find(self, batch: TokenBatch) -> Any:
        for known, output in self._kept:
            if known.input_ids is batch.input_ids:
                return output
        if self._cache is None or self._template is None:
            return None
        stream = self._cache.get(batch)
        return None if stream is None else with_tensor(self._template, stream)

    def _keeper(self, batch: TokenBatch) -> Callable[..., None]:
        def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            stream = output_tensor(output).detach()
            self._template = with_tensor(output, stream[:0])
            self._kept.append((batch, with_tensor(output, stream)))
            if self._cache is not None:
                self._cache.put(batch, stream)

        return keep


def _rows(batch: TokenBatch) -> list[Row]:
    return [tuple(ids[mask].tolist()) for ids, mask in zip(batch.input_ids, batch.mask, strict=True)]


def first_trained_block(architecture: Architecture, trained: list[nn.Parameter]) -> int:
    """Blocks below the first one that holds a trained tensor; 0 if one lies outside the blocks, or is used below."""
    wanted = {id(parameter) for parameter in trained}
    for index, block in enumerate(architecture.blocks):
        if wanted & {id(parameter) for parameter in block.parameters()}:
            inside = {id(p) for later in list(architecture.blocks)[index:] for p in later.parameters()}
            return index if wanted <= inside else 0
    return 0
