import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import make_hf, make_tokenizer
from safetensors.torch import load_file, save_file

from interp_unlearn.errors import CheckpointError
from interp_unlearn.models import load_model, weights_hash


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    make_hf("llama").save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def copied(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def test_round_trip(checkpoint: Path) -> None:
    hf, tokenizer = load_model(checkpoint)
    assert not hf.training
    assert tokenizer.bos_token_id == 1
    assert weights_hash(hf) == weights_hash(make_hf("llama"))
    assert load_model(str(checkpoint), dtype=torch.bfloat16)[0].dtype == torch.bfloat16


def refusal(path: str | Path) -> str:
    with pytest.raises(CheckpointError) as error:
        load_model(path)
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    return message


def test_nothing_there(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no such directory" in refusal(tmp_path / "nowhere")
    assert "no such directory" in refusal("./nowhere")
    assert "no such directory" in refusal("some/deep/path")
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "no such directory" in refusal("models/mistyped")
    assert "config.json" in refusal(tmp_path)
    assert "is a file" in refusal(checkpoint / "config.json")
    refusal("no-such-org/no-such-model")  # offline


def test_broken_config(copied: Path) -> None:
    (copied / "config.json").write_text('{"model_type": "lla')
    refusal(copied)
    (copied / "config.json").write_text('{"model_type": "no-such-type"}')
    refusal(copied)


def test_broken_weights(copied: Path) -> None:
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    refusal(copied)
    weights.unlink()
    refusal(copied)


def test_missing_weight_is_not_filled_with_noise(copied: Path) -> None:
    tensors = load_file(copied / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, copied / "model.safetensors", metadata={"format": "pt"})
    assert "model.layers.1.mlp.up_proj.weight" in refusal(copied)


def test_wrong_shape(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "intermediate_size": 40}))
    refusal(copied)


def test_no_tokenizer(copied: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copied / name).unlink()
    refusal(copied)


def test_hash_follows_one_bit_and_not_the_object() -> None:
    first, second = make_hf("gpt2"), make_hf("gpt2")
    assert weights_hash(first) == weights_hash(second)
    with torch.no_grad():
        second.transformer.h[1].mlp.c_fc.bias[3] += 1e-6
    assert weights_hash(first) != weights_hash(second)
