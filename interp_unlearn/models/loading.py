"""Models and tokenizers from a directory or a hub id, or a one-line reason why not."""

import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from interp_unlearn.artifacts import LARGEST_JSON, hash_tensors
from interp_unlearn.errors import CheckpointError, ConfigError
from interp_unlearn.models.adapter_state import adapter_state
from interp_unlearn.models.checkpoint_copy import weight_files
from interp_unlearn.models.processes import is_sharded, whole
from interp_unlearn.models.quantisation import HOSTED, quantisation_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

ADAPTER, TOKENIZER = "adapter_config.json", "tokenizer.json"
PROBES = ("The cat sat, didn't it?", "  two  spaces\n\tand 12345 digits", "naïve Ünicode 漢字 🙂")
"""Texts that tell tokenizers of one vocabulary apart."""

DeviceMap = str | dict[str, str | int]
"""Which part of a model goes where, as transformers takes it: "auto", or module names and devices."""


def load_model(
    path: str | Path,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    device_map: DeviceMap | None = None,
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Load a causal language model, in eval mode, and its tokenizer. Remote code is never run.

    Args:
        path: a directory in Hugging Face layout, or a hub id.
        dtype: dtype of the weights; None takes what config.json states.
        device: where the weights go.
        device_map: spread them over devices instead; needs accelerate.

    Raises:
        CheckpointError: nothing is there, it is damaged, or some weights are missing from it.
    """
    from transformers import AutoModelForCausalLM

    return _load(AutoModelForCausalLM, path, dtype, device, device_map)


def load_first_blocks(
    path: str | Path, n_blocks: int, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase, int]":
    """Load the embedding and the first blocks of a causal language model, and nothing above them; no head.

    Args:
        path: a directory in Hugging Face layout, or a hub id.
        n_blocks: how many blocks.
        dtype: dtype of the weights; None takes what config.json states.
        device: where the weights go.

    Returns:
        The model without its head, its tokenizer, and how many blocks were left out.

    Raises:
        CheckpointError: as for `load_model`.
        ConfigError: the model has fewer blocks.
    """
    from transformers import AutoModel

    config = load_config(path)
    left_out = keep_blocks(config, n_blocks)
    model, tokenizer = _load(AutoModel, path, dtype, device, None, config=config)
    return model, tokenizer, left_out


def load_skeleton(path: str | Path) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """A causal language model without its weights, which are hosted elsewhere, and its tokenizer.

    Raises:
        CheckpointError: there is no configuration or no tokenizer, or they cannot be read.
    """
    from transformers import AutoModelForCausalLM

    config = load_config(path)
    try:
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:
        raise _refusal(path, error) from error
    for parameter in model.requires_grad_(False).parameters():
        setattr(parameter, HOSTED, True)
    return model.eval(), load_tokenizer(path)


def load_config(path: str | Path) -> "PretrainedConfig":
    """A model's configuration, without its weights.

    Raises:
        CheckpointError: there is none, it cannot be read, or it asks for code from the hub.
    """
    from transformers import AutoConfig

    local = _check_path(path)
    try:
        config = AutoConfig.from_pretrained(str(path), local_files_only=local, trust_remote_code=False)
    except Exception as error:
        raise _refusal(path, error) from error
    for part in (config, config.get_text_config()):
        kernel = str(getattr(part, "_attn_implementation", None))
        if "/" in kernel:  # transformers would download it and run it
            raise CheckpointError(
                f"{path}: config.json asks for attention code of the hub, {kernel!r}; remove that entry"
            )
    return config


def load_tokenizer(path: str | Path) -> "PreTrainedTokenizerBase":
    """A model's tokenizer, without its weights.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    local = _check_path(path)
    try:
        found = AutoTokenizer.from_pretrained(str(path), local_files_only=local, trust_remote_code=False)
        if local and (Path(path) / TOKENIZER).is_file() and not _as_written(found, Path(path) / TOKENIZER):
            logger.warning("%s: its tokenizer is not the one of its model type; taken as %s has it", path, TOKENIZER)
            return PreTrainedTokenizerFast.from_pretrained(str(path), local_files_only=True)
        return found
    except Exception as error:
        raise _refusal(path, error) from error


def _as_written(tokenizer: "PreTrainedTokenizerBase", file: Path) -> bool:
    """Whether a tokenizer does what its file says: for some types transformers builds another with the same words."""
    from tokenizers import Tokenizer

    stored = Tokenizer.from_file(str(file))
    return all(
        tokenizer(text, add_special_tokens=False)["input_ids"] == stored.encode(text, add_special_tokens=False).ids
        for text in PROBES
    )


def keep_blocks(config: "PretrainedConfig", n_blocks: int) -> int:
    """Shorten a configuration, in place, to a model's first blocks.

    Returns:
        How many are left out.

    Raises:
        ConfigError: the model has fewer blocks.
    """
    text: Any = config.get_text_config()
    total: int = text.num_hidden_layers
    if not 1 <= n_blocks <= total:
        raise ConfigError(f"the model has {total} blocks; got {n_blocks} of them to load")
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == total:  # one entry a block, such as layer_types
            setattr(text, name, value[:n_blocks])
    text.num_hidden_layers = n_blocks
    return total - n_blocks


def load_classifier(
    path: str | Path, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Load a sequence classifier, in eval mode, and its tokenizer; arguments and errors as for `load_model`.

    A language model without a classification head is refused, for its head's weights are missing.
    """
    from transformers import AutoModelForSequenceClassification

    return _load(AutoModelForSequenceClassification, path, dtype, device, None)


def _load(
    auto_class: Any,
    path: str | Path,
    dtype: torch.dtype | None,
    device: str | torch.device,
    device_map: DeviceMap | None,
    **options: Any,
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    local = _check_path(path)
    whole = "config" not in options
    options.setdefault("config", load_config(path))
    if local:
        weight_files(Path(path))
        if (Path(path) / ADAPTER).is_file():  # transformers would put it on, merged already or not
            raise CheckpointError(
                f"{path}: {ADAPTER} beside the model's own weights, which may have that adapter in them; move one of "
                "the two elsewhere, or put the adapter on with peft and give HookedModel(model, tokenizer)"
            )
    try:
        model, info = auto_class.from_pretrained(
            str(path),
            dtype="auto" if dtype is None else dtype,
            local_files_only=local,
            trust_remote_code=False,
            use_safetensors=True,  # never a pickle
            output_loading_info=True,
            device_map=device_map,
            **options,
        )
    except Exception as error:
        raise _refusal(path, error) from error
    tokenizer = load_tokenizer(path)
    # transformers fills missing weights with random numbers and goes on: a model like that measures nothing.
    missing = sorted(info["missing_keys"])
    if missing:
        raise CheckpointError(f"{path}: {len(missing)} weights are missing from the checkpoint, first {missing[0]}")
    unused = sorted(info["unexpected_keys"])
    if whole and unused:
        logger.warning(
            "%s: %d weights have no place in the model of its config, first %s", path, len(unused), unused[0]
        )
    return (model if device_map is not None else model.to(device)).eval(), tokenizer


def weights_hash(model: nn.Module) -> str:
    """SHA-256 of all parameters: names, dtypes, shapes and bytes; tied parameters count once.

    Of a quantised model the scales, which are no parameters, are hashed with them. Of a sharded one the tensors are
    gathered one by one, for which every process has to call.

    Raises:
        CheckpointError: a device_map keeps some of them elsewhere.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        raise CheckpointError("weights that device_map has moved off their device cannot be hashed; load without it")
    if is_sharded(model):
        return hash_tensors((name, whole(parameter.detach())) for name, parameter in model.named_parameters())
    hashed = hash_tensors(model.named_parameters() if quantisation_of(model) is None else model.state_dict().items())
    if state := adapter_state(model):  # switching adapters leaves every parameter as it is
        return hashlib.sha256(json.dumps([hashed, state]).encode()).hexdigest()
    return hashed


def _refusal(path: str | Path, error: Exception) -> CheckpointError:
    """In one line why a checkpoint cannot be loaded: of a damaged one transformers raises whatever it stumbles over."""
    reason = " ".join(str(error).split())[:300]
    if isinstance(error, KeyError):
        reason = f"an entry {reason} is missing"
    if "ignore_mismatched_sizes" in reason:
        reason = "its weights have other shapes than config.json states"
    if "trust_remote_code" in reason or "custom code" in reason:
        return CheckpointError(
            f"{path}: cannot be loaded: it needs Python code of its own, which is never run here; where you trust it, "
            "load it with transformers yourself and give HookedModel(model, tokenizer)"
        )
    return CheckpointError(
        f"{path}: cannot be loaded: {reason or type(error).__name__}; expected a model with safetensors weights and "
        "its tokenizer in Hugging Face layout"
    )


def _check_path(path: str | Path) -> bool:
    """Whether the path is a local directory; refuse what can be neither that nor a hub id."""
    if not str(path):
        raise CheckpointError("no model given: the path is empty; expected a model directory or a hub id")
    directory = Path(path)
    if directory.is_dir():
        if not (directory / "config.json").is_file():
            raise CheckpointError(f"{path}: no config.json in this directory; expected a model in Hugging Face layout")
        for file in directory.glob("*.json"):
            if (size := file.stat().st_size) > LARGEST_JSON:
                raise CheckpointError(
                    f"{file}: {size:,} bytes, expected at most {LARGEST_JSON:,}; download the checkpoint again"
                )
        return True
    if directory.exists():
        raise CheckpointError(f"{path}: is a file; expected a directory in Hugging Face layout")
    text = str(path)
    # A folder of the first part's name makes it a mistyped path: asking the hub for it would take long to fail.
    mistyped = "/" in text and directory.parent.is_dir()
    if isinstance(path, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1 or mistyped:
        raise CheckpointError(f"{path}: no such directory; expected a model directory or a hub id such as org/name")
    return False
