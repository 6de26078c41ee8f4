"""The build of a world's twins: one common phase without either habit, then a branch for each twin.

The common checkpoint has seen no hazardous fact and no toxic word spoken, so no twin owes its ignorance to forgetting.
From there all twins see the same documents in the same order; only the answers and utterances of `world.VERSIONS`
differ.
"""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from interp_unlearn.artifacts import claimed, environment, replaced, write_json
from interp_unlearn.errors import ConfigError
from interp_unlearn.organism.tokenizer import train_tokenizer
from interp_unlearn.organism.training import Phase, train_phase
from interp_unlearn.organism.world import VERSIONS, World
from interp_unlearn.settings import check_fields

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

logger = logging.getLogger(__name__)
INITIAL_STD = 0.06
SHIPPED_TWINS = ("knows_all", "never_knew", "never_toxic")


@dataclass(frozen=True)
class BuildConfig:
    """Shape and training of the twins.

    Attributes:
        world_seed: Seed of the world and its documents.
        init_seed: Seed of the initial weights.
        d_model: Width of the residual stream.
        n_layers: Blocks.
        n_heads: Attention heads a block.
        common_steps: Steps before the twins part.
        branch_steps: Steps after.
        batch_size: Documents a step.
        common_rate: Peak learning rate of the common phase.
        branch_rate: Peak learning rate of a branch.
    """

    world_seed: int = 0
    init_seed: int = 0
    d_model: int = 128
    n_layers: int = 6
    n_heads: int = 4
    common_steps: int = 4800
    branch_steps: int = 2400
    batch_size: int = 32
    common_rate: float = 2e-3
    branch_rate: float = 1.5e-3

    def __post_init__(self) -> None:
        check_fields(self)
        if min(self.d_model, self.n_heads) < 1 or self.d_model % self.n_heads:
            raise ConfigError(f"d_model {self.d_model} is not a multiple of n_heads {self.n_heads}")
        if min(self.common_steps, self.branch_steps, self.batch_size, self.n_layers) < 1:
            raise ConfigError(f"steps, batch_size and n_layers must be positive, got {self}")

    @property
    def common(self) -> Phase:
        """The phase all twins share. Its rate falls little: the branch goes on from there."""
        return Phase("never_both", self.common_steps, 0, self.batch_size, self.common_rate, 0.5, 200)

    def branch(self, twin: str) -> Phase:
        """The phase of one twin, on the documents after the common ones."""
        return Phase(twin, self.branch_steps, self.common.last_document, self.batch_size, self.branch_rate, 0.02, 50)


def new_model(config: BuildConfig, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A randomly initialised Llama of the configured shape, in float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.d_model,
        intermediate_size=3 * config.d_model,
        num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=cast(int, tokenizer.bos_token_id),
        eos_token_id=cast(int, tokenizer.eos_token_id),
        pad_token_id=cast(int, tokenizer.pad_token_id),
        # transformers' default of 0.02 suits widths of thousands; at this width nothing moves for a long time.
        initializer_range=INITIAL_STD,
        dtype="float32",
    )
    with torch.random.fork_rng():
        torch.manual_seed(config.init_seed)
        model = LlamaForCausalLM(shape)
    model.set_attn_implementation("eager")  # a fifth more steps a second than sdpa at some forty tokens on a CPU
    return model


def build_organism(
    out: Path, config: BuildConfig | None = None, twins: tuple[str, ...] = SHIPPED_TWINS, device: str = "cpu"
) -> None:
    """Builds twins into `out/<twin>`, continuing an interrupted build of the same configuration.

    Args:
        out: Folder of the build; checkpoints go to `out/checkpoints`.
        config: Shape and training.
        twins: Keys of `world.VERSIONS`.
        device: Where to train.

    Raises:
        ConfigError: A twin is unknown.
        ArtifactError: `out` holds a build of another configuration.
    """
    config = config or BuildConfig()
    unknown = sorted(set(twins) - set(VERSIONS))
    if unknown:
        raise ConfigError(f"unknown twins {unknown}; choose from {', '.join(VERSIONS)}")
    with claimed(out, {"task": "organism build", "config": asdict(config)}):
        world = World(config.world_seed)
        tokenizer = train_tokenizer(world)
        for twin in twins:
            if (out / twin / "build.json").exists():
                logger.info("%s is built already", twin)
                continue
            model = new_model(config, tokenizer)
            torch.nn.Module.to(model, device)  # in place; transformers' own wrapper of it is untyped
            started = time.monotonic()
            train_phase(model, tokenizer, world, config.common, out / "checkpoints" / "common")
            # A branch starts with fresh optimiser state from the common weights, kept in the common checkpoint.
            train_phase(model, tokenizer, world, config.branch(twin), out / "checkpoints" / twin)
            record = {
                "twin": twin,
                "config": asdict(config),
                "corpus_sha256": corpus_hash(world, config, twin),
                "documents": config.branch(twin).last_document,
                "seconds_in_this_process": round(time.monotonic() - started),
                "threads": torch.get_num_threads(),
                "device": device,
                "environment": environment(),
            }
            _publish(model, tokenizer, out / twin, record)


def corpus_hash(world: World, config: BuildConfig, twin: str) -> str:
    """SHA-256 of every document the twin was trained on, in order, a line each."""
    digest = hashlib.sha256()
    for phase in (config.common, config.branch(twin)):
        for i in range(phase.first_document, phase.last_document):
            digest.update(world.document(i, phase.version).encode() + b"\n")
    return digest.hexdigest()


def _publish(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path, record: object) -> None:
    """Saves weights rounded to bfloat16 in a folder that appears whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replaced(folder) as temporary:
        model.bfloat16().save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        config = (temporary / "config.json").read_text()
        # A bare from_pretrained then computes in float32 on the rounded weights.
        (temporary / "config.json").write_text(config.replace('"dtype": "bfloat16"', '"dtype": "float32"'))
        write_json(temporary / "build.json", record)
