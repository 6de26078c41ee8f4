"""Models of which only the first blocks are loaded: read, trained and saved into a copy of the whole checkpoint."""

import json
import shutil

import pytest
import torch
from conftest import make_hf
from planted_classes import DATA, FORGET

from interp_unlearn.errors import CheckpointError, ConfigError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.models import load_model, parameters_by_role
from interp_unlearn.models.checkpoint_copy import stored_tensors, write_changed
from interp_unlearn.sites import Site
from interp_unlearn.unlearning import (
    AdversaryConfig,
    GradientAscent,
    GuardConfig,
    Misdirection,
    UnlearnConfig,
    unlearn,
)

CONFIG = UnlearnConfig(steps=4, batch_size=2, layers=(0, 1), kl_weight=0, learning_rate=1e-2)


@pytest.fixture(params=["one file", "shards"])
def checkpoint(request, architecture, tokenizer, tmp_path):
    folder = tmp_path / "whole"
    make_hf(architecture).save_pretrained(folder, max_shard_size="20KB" if request.param == "shards" else "1GB")
    tokenizer.save_pretrained(folder)
    assert (folder / "model.safetensors.index.json").exists() == (request.param == "shards")
    return folder


def test_reads_are_those_of_the_whole_model(checkpoint):
    whole, part = HookedModel.from_pretrained(checkpoint), HookedModel.from_pretrained(checkpoint, first_blocks=2)
    assert part.n_layers == 2 and part.is_partial and part.blocks_left_out == whole.n_layers - 2
    batch = whole.tokenize(FORGET)
    site = Site(1, "resid_post")
    with torch.no_grad():
        assert torch.equal(part.run(batch, reads=[site])[site], whole.run(batch, reads=[site])[site])
    for wrong in ({"logits": True}, {}, {"reads": [Site.logits]}):
        with pytest.raises(ConfigError, match="only the first 2 of"):
            part.run(batch, **wrong)
    with pytest.raises(ConfigError, match="generate"):
        part.generate(batch, 2)


def test_training_a_part_and_saving_it_is_training_the_whole(checkpoint, tokenizer, tmp_path):
    whole, part = HookedModel.from_pretrained(checkpoint), HookedModel.from_pretrained(checkpoint, first_blocks=2)
    for model in (whole, part):
        model.tokenizer = tokenizer  # Qwen2's class makes another one of the files
        result = unlearn(model, Misdirection(1), DATA, CONFIG, progress=False)
    part.save_pretrained(tmp_path / "saved")
    loaded = HookedModel.from_pretrained(tmp_path / "saved")
    expected = dict(whole.hf.named_parameters())
    original = dict(HookedModel.from_pretrained(checkpoint).hf.named_parameters())
    moved = []
    for name, value in loaded.hf.named_parameters():
        assert torch.equal(value, expected[name]), name
        if not torch.equal(value, original[name]):
            moved.append(name)
    assert len(moved) == len(result.changed) == 2
    assert (tmp_path / "saved" / "tokenizer.json").exists()


def test_what_needs_logits_is_refused_before_anything_is_computed(tokenizer, tmp_path):
    make_hf("llama").save_pretrained(tmp_path / "whole")
    tokenizer.save_pretrained(tmp_path / "whole")
    part = HookedModel.from_pretrained(tmp_path / "whole", first_blocks=2)
    before = part.hash()
    cases = [
        (GradientAscent(), {}, "needed by the objective"),
        (Misdirection(1), {"kl_weight": 1.0}, "retain terms"),
        (Misdirection(1), {"guard": GuardConfig()}, "guard"),
        (Misdirection(1), {"adversary": AdversaryConfig()}, r'relearns="activations" needs none'),
    ]
    for objective, changes, match in cases:
        with pytest.raises(ConfigError, match=match):
            unlearn(part, objective, DATA, UnlearnConfig(**{**vars(CONFIG), **changes}), progress=False)
    assert part.hash() == before
    restoring = AdversaryConfig(steps=2, gradient_steps=(2,), batch_size=2, relearns="activations")
    unlearn(part, Misdirection(1), DATA, UnlearnConfig(**{**vars(CONFIG), "adversary": restoring}), progress=False)
    assert part.hash() != before
    for blocks in (0, 9):
        with pytest.raises(ConfigError, match="the model has"):
            HookedModel.from_pretrained(tmp_path / "whole", first_blocks=blocks)
    with pytest.raises(ConfigError, match="backend torch"):
        HookedModel.from_pretrained(tmp_path / "whole", backend="nnsight", first_blocks=1)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_bytes_of_other_tensors_are_kept_and_equal_ones_not_written(checkpoint, tmp_path):
    files = sorted(checkpoint.glob("*.safetensors"))
    stored = {n: entry for file in files for n, entry in stored_tensors(file).items()}
    name = next(n for n in stored if "mlp" in n and n.endswith("weight"))
    value = torch.full(stored[name].shape, 0.5)
    assert write_changed(checkpoint, tmp_path / "copy", {name: value}) == [name]
    differing = 0
    for file in files:
        before, after = file.read_bytes(), (tmp_path / "copy" / file.name).read_bytes()
        assert len(before) == len(after)
        differing += sum(a != b for a, b in zip(before, after, strict=True))
    assert 0 < differing <= value.numel() * 4
    assert write_changed(tmp_path / "copy", tmp_path / "again", {name: value}) == []


@pytest.mark.parametrize("architecture", ["llama"])
def test_what_was_rounded_while_loading_is_not_rounded_on_disk(checkpoint, tmp_path):
    model = HookedModel.from_pretrained(checkpoint, first_blocks=1, dtype="bfloat16")
    (name,) = parameters_by_role(model.hf, ["mlp.down"], [0])
    with torch.no_grad():
        model.hf.get_parameter(name).mul_(2)
    model.mark_changed()
    model.save_pretrained(tmp_path / "copy")
    before, after = (load_model(folder)[0].state_dict() for folder in (checkpoint, tmp_path / "copy"))
    assert [key for key, value in before.items() if not torch.equal(value, after[key])] == [f"model.{name}"]


@pytest.mark.parametrize("architecture", ["llama"])
def test_damaged_and_foreign_checkpoints_are_refused(checkpoint, tmp_path):
    for tensors, match in (
        ({"model.nowhere.weight": torch.zeros(1)}, "no tensor named"),
        ({"model.norm.weight": torch.zeros(3)}, "has shape"),
    ):
        with pytest.raises(CheckpointError, match=match):
            write_changed(checkpoint, tmp_path / "out", tensors)
    file = sorted(checkpoint.glob("*.safetensors"))[0]
    whole = file.read_bytes()
    for damaged in (b"", b"\xff" * 16, whole[:40], (2).to_bytes(8, "little") + b"{]"):
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"not a safetensors file|outside"):
            write_changed(checkpoint, tmp_path / "out", {})
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    first = next(key for key in header if key != "__metadata__")
    header[first]["data_offsets"] = [0, 10**9]
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])
    with pytest.raises(CheckpointError, match="outside of the file"):
        write_changed(checkpoint, tmp_path / "out", {})
    index = checkpoint / "model.safetensors.index.json"
    if index.exists():
        index.write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))
        with pytest.raises(CheckpointError, match="outside of the folder"):
            write_changed(checkpoint, tmp_path / "out", {})
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()
    with pytest.raises(CheckpointError, match="neither"):
        write_changed(checkpoint, tmp_path / "out", {})
    assert not (tmp_path / "out").exists()
