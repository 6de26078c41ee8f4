"""Tiny random models of seven architectures and a tokenizer, all made here: no hub is needed."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from interp_unlearn.interventions import HookedModel
from interp_unlearn.models import TokenBatch

torch.set_num_threads(1)

ARCHITECTURES = ("llama", "qwen2", "gemma2", "gpt2")
ALL_ARCHITECTURES = (*ARCHITECTURES, "mistral", "qwen3", "gpt_neox")
WORDS = "the cat dog sat ran on a mat hill red blue big small and then it was not who said yes no".split()
TEXTS = [
    "the cat sat on a mat",
    "a big red dog ran",
    "who said it was not blue and then sat on the small hill",
    "yes",
]
COMMON = {
    "vocab_size": 4 + len(WORDS),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    # The default of 0.02 makes every block nearly the identity, and then no test could fail.
    "initializer_range": 0.2,
}


def make_hf(architecture: str, seed: int = 0) -> PreTrainedModel:
    """A tiny random model: 3 layers, width 32, in eval mode."""
    torch.manual_seed(seed)
    if architecture == "llama":
        model = LlamaForCausalLM(LlamaConfig(**COMMON))
    elif architecture == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**COMMON))
    elif architecture == "gemma2":
        model = Gemma2ForCausalLM(Gemma2Config(**COMMON, head_dim=8, sliding_window=4, query_pre_attn_scalar=8))
    elif architecture == "mistral":
        model = MistralForCausalLM(MistralConfig(**COMMON, sliding_window=4))
    elif architecture == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**COMMON, head_dim=8))
    elif architecture == "gpt_neox":
        values = {key: value for key, value in COMMON.items() if key != "num_key_value_heads"}
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**values))
    elif architecture == "gpt2":
        names = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}
        names |= {"max_position_embeddings": "n_positions", "intermediate_size": "n_inner"}
        values = {names.get(key, key): value for key, value in COMMON.items() if key != "num_key_value_heads"}
        model = GPT2LMHeadModel(GPT2Config(**values))
    else:
        raise ValueError(architecture)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "ln_" in name:  # norms start at 1 or 0: swapped norms would go unnoticed
                parameter.add_(0.3 * torch.randn_like(parameter))
        for name, parameter in model.named_parameters():
            if name.endswith(".bias") and "norm" not in name and "ln_" not in name:  # these all start at 0
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def make_tokenizer() -> PreTrainedTokenizerBase:
    """One token a word, with padding, BOS, EOS and unknown as ids 0 to 3."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    specials = ["<pad>", "<s>", "</s>", "<unk>"]
    vocabulary = {word: index for index, word in enumerate([*specials, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    return make_tokenizer()


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    """Each architecture in turn."""
    return request.param


@pytest.fixture
def model(architecture: str, tokenizer: PreTrainedTokenizerBase) -> HookedModel:
    """A tiny model of each architecture on the torch backend."""
    return HookedModel(make_hf(architecture), tokenizer, name=f"tiny-{architecture}")


@pytest.fixture
def llama(tokenizer: PreTrainedTokenizerBase) -> HookedModel:
    """A tiny Llama on the torch backend."""
    return HookedModel(make_hf("llama"), tokenizer, name="tiny-llama")


@pytest.fixture
def texts() -> list[str]:
    return list(TEXTS)


@pytest.fixture(params=["left", "right"])
def batch(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerBase) -> TokenBatch:
    """Four texts of different lengths, padded on either side."""
    from interp_unlearn.models import tokenize

    return tokenize(tokenizer, TEXTS, padding_side=request.param)
