"""What a pass must not be given: at some of it models fail without a reason, at the rest they go on."""

from typing import TYPE_CHECKING

from torch import nn

from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.models.architecture import Architecture
from interp_unlearn.models.batches import TokenBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_batch(batch: TokenBatch, architecture: Architecture, new_tokens: int = 0) -> None:
    """Refuse tokens that the model was not made for.

    Args:
        batch: the tokens.
        architecture: of the model.
        new_tokens: how many are to be generated; the last of them is read by no pass.

    Raises:
        DataError: there are no rows, one is longer than the model's context, or an id is none of the model's.
    """
    if len(batch) == 0:
        raise DataError("batch", "no rows; expected at least one text")
    limit, needed = architecture.context_length, batch.longest + max(0, new_tokens - 1)
    if limit is not None and needed > limit:
        new = f" and {new_tokens} new ones" if new_tokens else ""
        raise DataError(
            "batch",
            f"the longest row has {batch.longest} tokens{new}, the model takes {limit}; cut the texts (max_length), or "
            "ask for fewer new tokens",
        )
    n_ids: int | None = getattr(architecture.embed, "num_embeddings", None)
    smallest, largest = batch.id_range
    if smallest < 0 or (n_ids is not None and largest >= n_ids):
        wrong = smallest if smallest < 0 else largest
        raise DataError("batch", f"id {wrong} is none of the model's {n_ids}; use the tokenizer that belongs to it")


def check_mode(hf: "PreTrainedModel") -> None:
    """Refuse a model that was left in training mode and drops activations, so that no two passes are alike.

    Raises:
        ConfigError: it is.
    """
    training = [module for module in hf.modules() if module.training]  # adapters put on later are, in a model at rest
    if not training:
        return
    shares: list[object] = [module.p for module in training if isinstance(module, nn.Dropout)]
    if hf.training:
        stated = vars(hf.config.get_text_config()).items()
        shares += [value for name, value in stated if "dropout" in name or name.endswith("pdrop")]
    if any(isinstance(share, int | float) and share > 0 for share in shares):
        raise ConfigError(
            "the model is in training mode, or a part of it, and its dropout is on, so no two passes are alike; call "
            "hf.eval() first"
        )
