"""Two families of small classifiers, alike in neither tokenizer nor reading direction, so that they err differently."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from interp_unlearn.models.encoding import special_id

if TYPE_CHECKING:
    from tokenizers.normalizers import Normalizer
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from interp_unlearn.evaluation.classifiers.config import ClassifierConfig

LABELS = {0: "neutral", 1: "toxic"}


@dataclass(frozen=True)
class Family:
    """A kind of classifier.

    Attributes:
        summary: what it is, for its card.
        make_tokenizer: trains a tokenizer on texts.
        make_model: random weights for a tokenizer, from the global random state.
    """

    summary: str
    make_tokenizer: "Callable[[Sequence[str], ClassifierConfig], PreTrainedTokenizerFast]"
    make_model: "Callable[[PreTrainedTokenizerFast, ClassifierConfig], PreTrainedModel]"


def plain_normalizer() -> "Normalizer":
    """Undo formatting, so that words decide and not how they were typed.

    In ParaDetox the toxic sentences are lower-cased and pre-tokenised (``do n't know .``), and most of their rewrites
    are not: case and spaces alone would tell the classes apart, and well-formed text would always look clean. So case,
    accents, typographic quotes, spaces before punctuation and contractions, and punctuation at the end are dropped.
    """
    from tokenizers import Regex, normalizers

    replacements = [
        ("[\u2018\u2019`]", "'"),
        ("[\u201c\u201d]|''", '"'),
        (r"\s+", " "),
        (r" (?=[.,;:!?]|n't|'[a-z])", ""),
        (r"[ .!?]+$|^ +", ""),
    ]
    steps = [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    return normalizers.Sequence([*steps, *(normalizers.Replace(Regex(old), new) for old, new in replacements)])


def character_tokenizer(texts: Sequence[str], config: "ClassifierConfig") -> "PreTrainedTokenizerFast":
    """Character pairs within words, a word's beginning marked and punctuation apart, between [CLS] and [SEP].

    WordPiece would be usual here, but its trainer in the tokenizers library gives another vocabulary at every call.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = plain_normalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary, min_frequency=2, special_tokens=specials, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=config.max_length,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def bytes_tokenizer(texts: Sequence[str], config: "ClassifierConfig") -> "PreTrainedTokenizerFast":
    """Byte-level pairs (Radford et al. 2019), between <s> and </s>: no spelling is unknown to it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    specials = ["<pad>", "<s>", "</s>", "<mask>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = plain_normalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary,
        min_frequency=2,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=config.max_length,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        mask_token="<mask>",
    )


def encoder_model(tokenizer: "PreTrainedTokenizerFast", config: "ClassifierConfig") -> "PreTrainedModel":
    """A small DistilBERT: both directions, read at [CLS]."""
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    return DistilBertForSequenceClassification(
        DistilBertConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=config.max_length,
            dim=config.width,
            hidden_dim=2 * config.width,
            n_layers=config.layers,
            n_heads=config.heads,
            dropout=config.dropout,
            attention_dropout=config.dropout,
            seq_classif_dropout=config.dropout,
            pad_token_id=special_id(tokenizer, "pad"),
            id2label=LABELS,
            label2id={name: index for index, name in LABELS.items()},
            problem_type="single_label_classification",
        )
    )


def decoder_model(tokenizer: "PreTrainedTokenizerFast", config: "ClassifierConfig") -> "PreTrainedModel":
    """A small GPT-2: left to right, read at the last token."""
    from transformers import GPT2Config, GPT2ForSequenceClassification

    return GPT2ForSequenceClassification(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=config.max_length,
            n_embd=config.width,
            n_inner=2 * config.width,
            n_layer=config.layers,
            n_head=config.heads,
            embd_pdrop=config.dropout,
            attn_pdrop=config.dropout,
            resid_pdrop=config.dropout,
            pad_token_id=special_id(tokenizer, "pad"),
            bos_token_id=special_id(tokenizer, "bos"),
            eos_token_id=special_id(tokenizer, "eos"),
            id2label=LABELS,
            label2id={name: index for index, name in LABELS.items()},
            problem_type="single_label_classification",
        )
    )


FAMILIES = {
    "encoder": Family("DistilBERT over character BPE tokens", character_tokenizer, encoder_model),
    "decoder": Family("GPT-2 over byte-level BPE tokens", bytes_tokenizer, decoder_model),
}
"""The kinds that can be trained, by name."""
