"""What a classifier is trained with."""

from dataclasses import dataclass

from interp_unlearn.errors import ConfigError
from interp_unlearn.evaluation.classifiers.families import FAMILIES
from interp_unlearn.settings import check_fields


@dataclass(frozen=True)
class ClassifierConfig:
    """Settings of `train_classifier`; the defaults suit some ten thousand short sentences and one core.

    Attributes:
        kind: ``encoder`` or ``decoder``, see `families`.
        epochs: most passes over the training texts.
        patience: epochs without a lower validation loss after which training ends; the best epoch's weights are kept.
        batch_size: texts a step.
        learning_rate: of AdamW, after a tenth of an epoch of linear warm-up.
        token_dropout: share of a training text's tokens that are masked, so that no single word decides.
        dropout: inside the network.
        vocabulary: most tokens of the tokenizer that is trained.
        max_length: tokens of the context.
        width, layers, heads: of the network.
        held_out: share of the groups that quality is measured on, and as many again that decide when to stop.
        seed: of the split, the weights, the batches and the dropout.
    """

    kind: str = "encoder"
    epochs: int = 10
    patience: int = 2
    batch_size: int = 64
    learning_rate: float = 1e-3
    token_dropout: float = 0.1
    dropout: float = 0.1
    vocabulary: int = 8000
    max_length: int = 128
    width: int = 128
    layers: int = 2
    heads: int = 4
    held_out: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.kind not in FAMILIES:
            raise ConfigError(f"kind: expected one of {', '.join(FAMILIES)}, got {self.kind!r}")
        for name in ("epochs", "patience", "batch_size", "layers", "heads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.vocabulary < 300:
            raise ConfigError(f"vocabulary: expected at least 300 tokens (256 are single bytes), got {self.vocabulary}")
        if self.max_length < 8:
            raise ConfigError(f"max_length: expected at least 8 tokens, got {self.max_length}")
        if self.width < 1 or self.width % self.heads:
            raise ConfigError(f"width: expected a multiple of the {self.heads} heads, got {self.width}")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate: expected a positive number, got {self.learning_rate}")
        for name in ("token_dropout", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected a share from 0 to below 1, got {getattr(self, name)}")
        if not 0 < self.held_out < 0.5:
            raise ConfigError(f"held_out: expected a share between 0 and 0.5, got {self.held_out}")
