"""Models of known shapes with random weights, and a tokenizer for them: no hub is needed."""

from collections.abc import Sequence

import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

VOCABULARY = 8192
"""Of the tokenizer; the models keep their own, larger ones."""
_ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}

SHAPES: dict[str, PretrainedConfig] = {
    "gpt2_tiny": GPT2Config(n_layer=4, n_embd=64, n_head=4, vocab_size=VOCABULARY, **_ENDS),
    "gpt2_small": GPT2Config(**_ENDS),  # 12 layers, width 768
    "llama_8b": LlamaConfig(
        num_hidden_layers=32,
        hidden_size=4096,
        intermediate_size=14336,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
        max_position_embeddings=8192,
        **_ENDS,
    ),
}


def make_model(shape: str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A model of that shape, in eval mode, weights drawn under seed 0 on the device itself."""
    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(SHAPES[shape], dtype=dtype).eval()


def make_tokenizer(texts: Sequence[str] = ("a",)) -> PreTrainedTokenizerBase:
    """A byte-level BPE trained on the texts, so that their lengths in tokens are realistic."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=["<pad>", "<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
