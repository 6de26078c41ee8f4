"""The Python of the README runs as it stands, on a tiny model in the place of the user's."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import COMMON, TEXTS, make_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

README = Path(__file__).parents[1] / "README.md"
TEMPLATE = "{% for m in messages %}{{ m.role }} {{ m.content }} </s>\n{% endfor %}"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**COMMON | {"num_hidden_layers": 10, "initializer_range": 0.1})).save_pretrained(
        folder
    )
    tokenizer = make_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def test_python_blocks_run_one_after_another(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 2
    sentences = [f"{start} {end}" for start in TEXTS for end in ("cat", "dog", "hill")]
    names: dict[str, Any] = {
        "toxic": [f"{sentence} red" for sentence in sentences],
        "civil": [f"{sentence} blue" for sentence in sentences],
        "pair_ids": [*range(len(sentences))] * 2,
        "chats": [[{"role": "user", "content": "yes"}, {"role": "assistant", "content": "no no"}]] * 2,
        "direction": torch.linspace(-1, 2, 32),
        "vector": torch.ones(32),
    }
    for block in blocks:
        exec(block.replace("path-or-hub-id", str(checkpoint)), names)
    assert "9.resid_post" in capsys.readouterr().out
    assert names["new_tokens"].shape[0] == 1
    assert names["samples"].shape[0] == 2 * 25
    assert list(names["trace"].sites) == [names["Site"](9, "resid_mid")] and names["trace"].logits is None
