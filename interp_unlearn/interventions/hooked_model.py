"""`HookedModel`: a Hugging Face causal language model with one way to read and edit its activations."""

import hashlib
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Int
from torch import Tensor

from interp_unlearn.errors import BackendError, ConfigError, SiteError
from interp_unlearn.interventions.agreement import AgreementCheck
from interp_unlearn.interventions.ambient import (
    AmbientEdits,
    compiled_code_unused,
    hides_gradients,
    inside_blocks,
    recomputes_blocks,
)
from interp_unlearn.interventions.backends import check_backend, check_hosted, make_backend
from interp_unlearn.interventions.checks import check_batch, check_mode
from interp_unlearn.interventions.contexts import context_of_batch
from interp_unlearn.interventions.edits import Edit, EditMap, merge_edits
from interp_unlearn.interventions.forward_pass import ForwardPass, Keep
from interp_unlearn.interventions.generation import generate_tokens
from interp_unlearn.interventions.prefix import SharedPrefix
from interp_unlearn.interventions.trace import Trace
from interp_unlearn.models import Chat, TokenBatch, resolve_architecture, tokenize, tokenize_chats
from interp_unlearn.models.adapter_state import adapter_state
from interp_unlearn.models.checkpoint_copy import write_changed
from interp_unlearn.models.encoding import special_id
from interp_unlearn.models.loading import DeviceMap, load_first_blocks, load_model, load_skeleton, weights_hash
from interp_unlearn.models.processes import save_weights
from interp_unlearn.models.quantisation import check_quantisation, keep_codes
from interp_unlearn.sites import Site
from interp_unlearn.snapshots import open_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Edits = Mapping[Site, Edit | Sequence[Edit]]


class HookedModel:
    """A model, its tokenizer and a backend.

    Attributes:
        hf: the Hugging Face model. Change its weights only in place, and call `mark_changed` afterwards.
        tokenizer: its tokenizer.
        backend: name of the backend that runs the passes.
        name: where the model came from.
        remote: where passes run, of a hosted model, as `from_pretrained` was told; False for a model that is here.
        blocks_left_out: of a model loaded up to some block, how many lie above it; 0 for a whole one.
    """

    def __init__(
        self,
        hf: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        backend: str = "torch",
        name: str = "",
        remote: bool | str = False,
    ) -> None:
        hf = getattr(hf, "_orig_mod", hf)  # torch.compile's wrapper
        self.hf = hf
        self.tokenizer = tokenizer
        self.backend = backend
        self.name = name
        self.remote = remote
        self.blocks_left_out = 0
        check_quantisation(hf)
        keep_codes(hf)
        self.architecture = resolve_architecture(hf)
        self._backend = make_backend(backend, hf, tokenizer, self.architecture, remote)
        self._ambient = AmbientEdits(hf, self.architecture, special_id(tokenizer, "bos"))
        self._agreement = AgreementCheck(self._backend, hf, self.architecture)
        self._prefix: SharedPrefix | None = None
        self._hash: tuple[object, str] | None = None

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        backend: str = "torch",
        dtype: torch.dtype | None = None,
        device: str | torch.device = "cpu",
        device_map: DeviceMap | None = None,
        first_blocks: int | None = None,
        revision: str | None = None,
        remote: bool | str = False,
    ) -> "HookedModel":
        """Load a model from a directory or a hub id.

        Args:
            path: where it is.
            backend: "torch", "transformer_lens", "nnsight", or one of your own.
            dtype: of the weights; None takes what config.json states.
            device: where the weights go.
            device_map: spread them over devices instead, as in transformers; needs accelerate.
            first_blocks: load the embedding and this many blocks, no others and no head: enough to read and to train
                below, in a fraction of the memory. Whatever needs logits is then refused; under the torch backend only.
            revision: of a hub id: commit, tag or branch; None takes what the hub shows now.
            remote: read a model that NDIF hosts, with the backend "nnsight": True, or the URL of a server like it, or
                "local" for nnsight's simulation of one. No weights come here, so it can be read and nothing else.

        Raises:
            CheckpointError: it cannot be loaded.
            BackendError: there is no such backend, or it does not take this model.
            ConfigError: there are not that many blocks, options contradict each other, or a revision of a directory.
            HubError: that revision cannot be fetched.
        """
        check_backend(backend)  # before the minutes a large model takes to load
        if remote:
            check_hosted(backend, device, dtype, device_map, first_blocks, revision)
            hf, tokenizer = load_skeleton(path)
            return cls(hf, tokenizer, backend, str(path), remote)
        if revision is not None:
            path = open_folder(path, revision, expected="config.json")
        if first_blocks is not None:
            if backend != "torch" or device_map is not None:
                raise ConfigError(
                    f"first_blocks needs the backend torch and no device_map, got {backend}, {device_map}"
                )
            hf, tokenizer, left_out = load_first_blocks(path, first_blocks, dtype, device)
            model = cls(hf, tokenizer, backend, str(path))
            model.blocks_left_out = left_out
            return model
        hf, tokenizer = load_model(path, dtype, device, device_map)
        return cls(hf, tokenizer, backend, str(path))

    @property
    def n_layers(self) -> int:
        return self.architecture.n_layers

    @property
    def d_model(self) -> int:
        return self.architecture.d_model

    @property
    def context_length(self) -> int | None:
        """Tokens of the longest text the model was made for; None if its config does not say."""
        return self.architecture.context_length

    @property
    def is_partial(self) -> bool:
        """Whether only the first blocks are loaded, so that there are no logits."""
        return self.architecture.unembed is None

    @property
    def device(self) -> torch.device:
        """Where token ids go: the embedding's device, of a model that is spread over several."""
        return torch.device("cpu") if self.remote else self.architecture.device

    @property
    def dtype(self) -> torch.dtype:
        return self.hf.dtype

    def tokenize(self, texts: Sequence[str], **options: Any) -> TokenBatch:
        """Turn texts into a batch on the model's device; options as in `models.tokenize`."""
        return tokenize(self.tokenizer, texts, **options).to(self.device)

    def tokenize_chats(self, chats: Sequence[Chat], **options: Any) -> TokenBatch:
        """Turn conversations into a batch on the model's device; options as in `models.tokenize_chats`."""
        return tokenize_chats(self.tokenizer, chats, **options).to(self.device)

    def run(
        self,
        batch: TokenBatch,
        reads: Sequence[Site] = (),
        edits: Edits | None = None,
        stop_after: int | None = None,
        logits: bool | None = None,
        keep: Keep | None = None,
    ) -> Trace:
        """Run one forward pass, in the ambient grad mode, with reads and edits.

        Args:
            batch: the tokens.
            reads: sites to read, each after the edits at it.
            edits: edits by site, applied after those of any surrounding `edited`.
            stop_after: end the pass after this block, counted from 0.
            logits: True computes logits although something is read. Without it they are computed only if nothing is
                read; otherwise the pass ends after the deepest read.
            keep: what to keep of each read, called inside the hook with the site, the activation and its context; a
                mean over tokens, for one, so that no site's activation outlives its block. Without it, everything.

        Returns:
            The reads, [batch, pos, d_model] each ([batch, pos, head, d_head] at z, [batch, pos, d_mlp] at mlp_post), or
            what was kept of them, with their graph if gradients are on, and the logits if computed.

        Raises:
            SiteError: a site does not exist in this model, or lies beyond `stop_after`.
            ConfigError: the arguments contradict each other, or the model is in training mode where nothing is trained.
            DataError: the batch has no rows, a row is longer than the model's context, or an id is none of its own.
            BackendError: the backend disagrees with the torch backend, or cannot give the gradients or edits asked for.
        """
        reads = tuple(dict.fromkeys(reads))
        own = merge_edits(edits)
        stop = self._last_site(reads, stop_after, logits)
        merged = merge_edits(self._ambient.edits, own) if self._ambient.edits else own
        for site in (*reads, *own):
            self._backend.check_site(site)
        self._check_gradients(reads, own)
        check_batch(batch, self.architecture)
        if not torch.is_grad_enabled():
            check_mode(self.hf)
        batch = batch.to(self.device)
        wanted = reads if stop is not None else (*reads, Site.logits)
        kept = None if keep is None else _of_reads(keep, reads)
        forward_pass = ForwardPass(context_of_batch(batch), wanted, merged, stop=stop, keep=kept)
        # torch.compile would not notice hooks that come and go.
        with self._ambient.handed_over(forward_pass.context), compiled_code_unused():
            if not self.remote:
                self._agreement.ensure(forward_pass.sites)
            with nullcontext() if self._prefix is None else self._prefix.used(batch, forward_pass):
                self._backend.run(batch, forward_pass)
        return Trace(reads, forward_pass.values.get(Site.logits), forward_pass.values)

    @contextmanager
    def edited(self, edits: Edits) -> Generator[None]:
        """Apply edits to every `run`, `generate` or plain forward of `hf` inside the block.

        Blocks nest, the outer edits being applied first; on leaving a block, also by an exception, exactly its own
        edits are taken off.

        Raises:
            SiteError: a site does not exist in this model.
        """
        self._check_here("edited")
        merged = merge_edits(edits)
        for site in merged:
            self.architecture.module_at(site)
            self._backend.check_site(site)
        with self._ambient.applied(merged):
            yield

    @contextmanager
    def sharing(self, prefix: SharedPrefix) -> Generator[None]:
        """Inside the block, passes over the same batch compute the first blocks once; see `SharedPrefix`.

        For as long as no weight below changes; nothing checks that. Gradients do not reach below. Under other backends
        than torch passes run whole.
        """
        before = self._prefix
        self._prefix = prefix if self.backend == "torch" else None
        try:
            yield
        finally:
            self._prefix = before
            prefix.forget()

    def generate(
        self,
        batch: TokenBatch,
        max_new_tokens: int,
        *,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop_token_ids: Sequence[int] = (),
        n_continuations: int = 1,
    ) -> Int[Tensor, "batch*n_continuations new"]:
        """Continue each row of a batch, under the surrounding `edited`, with Hugging Face's cached generation.

        Args:
            batch: prompts, padded on either side.
            max_new_tokens: upper bound; fewer columns come back if all rows finish early.
            do_sample: sample instead of taking the most probable token; needs a seed.
            temperature: of the sampling distribution.
            top_p: nucleus of the sampling distribution.
            seed: of the sampling; the global random state is left as it was.
            stop_token_ids: ids that end a row, besides the end-of-sequence ids of model and tokenizer.
            n_continuations: continuations of each row, in consecutive rows of the result; more than one needs sampling.

        Returns:
            The new tokens only; after a row's stop token there is only padding.

        Raises:
            ConfigError: a setting is out of range, or sampling was asked for without a seed.
            DataError: the batch does not fit the model, or leaves too little of its context for the new tokens.
            ScoreError: the logits are not numbers.
        """
        self._check_here("asked to generate")
        check_batch(batch, self.architecture, max_new_tokens)
        check_mode(self.hf)
        if self.is_partial:
            raise ConfigError("a model loaded without its upper blocks cannot generate; load the whole model")
        stop_ids = sorted({*self._end_ids(), *stop_token_ids})
        pads = (special_id(self.tokenizer, "pad"), special_id(self.tokenizer, "eos"), *stop_ids, 0)
        batch = batch.to(self.device)
        with self._ambient.generating(batch, stop_ids, n_continuations):
            return generate_tokens(
                cast("PreTrainedModel", self.architecture.model),
                batch,
                max_new_tokens,
                do_sample=do_sample,
                temperature=temperature,
                top_p=top_p,
                seed=seed,
                stop_ids=stop_ids,
                pad_id=next(pad for pad in pads if pad is not None),
                n_continuations=n_continuations,
            )

    def save_pretrained(self, path: str | Path) -> None:
        """Write model and tokenizer in Hugging Face layout.

        Of a model loaded up to some block the checkpoint it came from is copied, with the changed tensors in it. Of a
        sharded one the weights are gathered, for which every process has to call; the first writes them.

        Raises:
            CheckpointError: that checkpoint cannot be copied (`write_changed`), or adapters are on the model.
        """
        self._check_here("saved")
        if self.is_partial:
            write_changed(self.name, path, dict(self.hf.named_parameters()), self.hf.base_model_prefix)
            return
        if save_weights(self.hf, path):
            self.tokenizer.save_pretrained(path)

    def hash(self) -> str:
        """SHA-256 of parameters and of which adapters are on (hosted: of the name), anew when a change is noticed."""
        if self.remote:
            return hashlib.sha256(f"hosted {self.name}".encode()).hexdigest()
        seen = [(id(part), part._version, part.dtype) for part in self.hf.parameters()], adapter_state(self.hf)
        if self._hash is None or self._hash[0] != seen:
            self._hash = (seen, weights_hash(self.hf))
        return self._hash[1]

    def mark_changed(self) -> None:
        """Say that weights were changed in place: forgets the hash, and checks the backend again before its next use.

        Raises:
            BackendError: the backend cannot follow the change.
        """
        self._hash = None
        self._agreement.forget()
        self._backend.mark_changed()

    def _check_here(self, what: str) -> None:
        if self.remote:
            raise BackendError(
                f"{self.name} is hosted elsewhere and can only be read, not {what}; load it without remote"
            )

    def _last_site(self, reads: Sequence[Site], stop_after: int | None, logits: bool | None) -> Site | None:
        """Where the pass may end; None for a whole pass."""
        wants_logits = bool(logits) or Site.logits in reads
        if self.is_partial and (wants_logits or (not reads and logits is None and stop_after is None)):
            raise ConfigError(
                f"only the first {self.n_layers} of {self.n_layers + self.blocks_left_out} blocks are loaded, so there "
                "are no logits: load the whole model, or use losses on activations alone (kl_weight=0)"
            )
        if stop_after is not None:
            stop = Site(stop_after, "resid_post")
            stop.check(self.n_layers)
            if wants_logits:
                raise ConfigError(
                    f"logits were asked for, but stop_after={stop_after} ends the pass before them; drop one"
                )
            if reads and max(reads) > stop:
                raise SiteError(f"{max(reads)} lies beyond stop_after={stop_after}; raise it or drop the read")
            return stop
        if wants_logits or (not reads and logits is None):
            return None
        if not reads:
            raise ConfigError("nothing to compute: no reads, logits=False and no stop_after; ask for one of them")
        return max(reads)

    def _check_gradients(self, reads: Sequence[Site], own: EditMap) -> None:
        if not torch.is_grad_enabled():
            return
        if any(parameter.requires_grad for parameter in self._backend.without_gradient()):
            raise BackendError(
                f"backend {self.backend!r} gives some weights of this model that require gradients none; use backend "
                "'torch', or torch.no_grad() for reading, or freeze them"
            )
        if (inside := inside_blocks(own)) and recomputes_blocks(self.hf):
            raise BackendError(
                f"edit at {inside[0]} with activation checkpointing: the backward pass recomputes the block after the "
                "edit is gone; use `with model.edited(...)` around both passes"
            )
        if (inside := inside_blocks(reads)) and hides_gradients(self.hf):
            raise BackendError(
                f"read at {inside[0]} with re-entrant activation checkpointing gets no gradients; enable it with "
                "use_reentrant=False, or use torch.no_grad() for reading"
            )

    def _end_ids(self) -> list[int]:
        stated: int | list[int] | None = getattr(self.hf.generation_config, "eos_token_id", None)
        ids = stated if isinstance(stated, list) else [stated]
        return [i for i in (*ids, special_id(self.tokenizer, "eos")) if i is not None]


def _of_reads(keep: Keep, reads: Sequence[Site]) -> Keep:
    """Leave logits whole that were not read but are computed all the same."""
    return lambda site, activation, context: keep(site, activation, context) if site in reads else activation
