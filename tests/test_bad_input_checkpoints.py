"""Bad input, checkpoints: what is missing, damaged or pickled is refused by name, before anything is run."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import make_hf, make_tokenizer
from safetensors.torch import load_file, save_file

from interp_unlearn import HookedModel
from interp_unlearn.errors import BackendError, CheckpointError, ConfigError
from interp_unlearn.evaluation import ClassifierScorer
from interp_unlearn.models.checkpoint_copy import stored_tensors, write_changed
from interp_unlearn.models.loading import load_first_blocks, load_model, load_tokenizer

Act = Callable[[Path], object]
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint of one file."""
    path = tmp_path_factory.mktemp("checkpoint") / "tiny"
    make_hf("llama").save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def copied(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "tiny"))


def without(*names: str) -> Act:
    """Load with some files removed."""

    def act(folder: Path) -> object:
        for name in names:
            (folder / name).unlink()
        return load_model(folder)

    return act


def with_file(name: str, content: str | bytes) -> Act:
    """Load with a file replaced or added."""

    def act(folder: Path) -> object:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return load_model(folder)

    return act


def with_config(**change: object) -> Act:
    """Load with entries of config.json changed."""

    def act(folder: Path) -> object:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | change))
        return HookedModel.from_pretrained(folder)

    return act


def sharded(folder: Path, second: str = "b.safetensors") -> None:
    """Cut the weights into two files, of which the index calls the second by any name."""
    tensors = load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    names = sorted(tensors)
    for file, chosen in (("a.safetensors", names[:5]), ("b.safetensors", names[5:])):
        save_file({name: tensors[name] for name in chosen}, folder / file, metadata={"format": "pt"})
    places = {name: "a.safetensors" if i < 5 else second for i, name in enumerate(names)}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))


def with_index(second: str, prepare: Callable[[Path], object] = lambda folder: None) -> Act:
    """Load two shards of which the index calls the second by another name."""

    def act(folder: Path) -> object:
        sharded(folder, second)
        prepare(folder)
        return load_model(folder)

    return act


def index_alone(content: str) -> Act:
    """Load with nothing but an index for weights."""

    def act(folder: Path) -> object:
        (folder / SINGLE).unlink()
        return with_file(INDEX, content)(folder)

    return act


def pickled(folder: Path) -> object:
    (folder / SINGLE).unlink()
    torch.save(make_hf("llama").state_dict(), folder / "pytorch_model.bin")
    return load_model(folder)


def outside(folder: Path) -> None:
    """Move the second shard out of the folder and leave a link to it."""
    shutil.move(folder / "b.safetensors", folder.parent / "elsewhere.safetensors")
    (folder / "b.safetensors").symlink_to(folder.parent / "elsewhere.safetensors")


def copy_with(name: str) -> Act:
    """Copy with a changed tensor of three numbers."""
    return lambda folder: write_changed(folder, folder.parent / "out", {name: torch.zeros(3)})


def without_tensor(folder: Path) -> object:
    tensors = load_file(folder / SINGLE)
    del tensors["model.norm.weight"]
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
    return load_model(folder)


LOADED = (
    r"cannot be loaded: .*%s.*; expected a model with safetensors weights and its tokenizer in Hugging Face layout$"
)
CASES: dict[str, tuple[Act, str]] = {
    "no folder": (lambda f: load_model(f / "no"), r"no such directory; expected a model directory or a hub id"),
    "no name": (lambda f: load_model(""), r"no model given: the path is empty; expected a model directory"),
    "a file": (lambda f: load_model(f / SINGLE), r"is a file; expected a directory in Hugging Face layout"),
    "no config": (without("config.json"), r"no config\.json in this directory; expected a model in Hugging"),
    "no weights": (without(SINGLE), r"neither model\.safetensors nor .*index\.json; save the checkpoint with safetens"),
    "no tokenizer": (without("tokenizer.json", "tokenizer_config.json"), LOADED % ""),
    "config is no JSON": (with_file("config.json", "{"), LOADED % "not a valid JSON file"),
    "config is a list": (with_file("config.json", "[]"), LOADED % "Unrecognized model"),
    "config nested too deeply": (with_file("config.json", "[" * 10**5), LOADED % "maximum recursion depth"),
    "unknown architecture": (with_config(model_type="zork"), r"cannot be loaded: .*`zork`"),
    "layers in words": (with_config(num_hidden_layers="x"), LOADED % "'num_hidden_layers' expected int"),
    "no layers": (with_config(num_hidden_layers=0), r"has no list of 0 blocks, as its config states; expected"),
    "too many layers": (with_config(num_hidden_layers=4), r"9 weights are missing .*, first model\.layers\.3"),
    "another width": (with_config(intermediate_size=40), LOADED % r"weights have other shapes than config\.json"),
    "no heads": (with_config(num_attention_heads=0), LOADED % ""),
    "whole numbers": (with_config(dtype="int8"), LOADED % "int8"),
    "an unknown dtype": (with_config(dtype="zork"), LOADED % "zork"),
    "attention code of the hub": (with_config(_attn_implementation="a/b"), r"asks for attention code .*'a/b'; remove"),
    "a missing tensor": (without_tensor, r"1 weights are missing from the checkpoint, first model\.norm\.weight"),
    "cut short": (with_file(SINGLE, b"\x10"), LOADED % "header too small"),
    "a header that is no JSON": (with_file(SINGLE, (2).to_bytes(8, "little") + b"{]"), LOADED % "JSON in header"),
    "a pickle": (pickled, r"weights are pickled \(pytorch_model\.bin\), which can run code when opened: .*convert"),
    "index is no JSON": (index_alone("{"), r"index\.json:1: not valid JSON: .*download the checkpoint again"),
    "index is a list": (index_alone("[]"), r"index\.json: expected a JSON object, got list; .*download"),
    "index without a map": (index_alone("{}"), r"weight_map: expected dict, got nothing; .*download"),
    "index of nothing": (index_alone('{"weight_map": {}}'), r"names no files; download the checkpoint again"),
    "index of numbers": (index_alone('{"weight_map": {"a": 3}}'), r"names a file outside of the folder: 3"),
    "a missing shard": (with_index("c.safetensors"), r"c\.safetensors is missing; download the checkpoint again"),
    "a shard above": (with_index("../b.safetensors"), r"names a file outside of the folder: \.\./b\.safetensors"),
    "an absolute shard": (with_index("/b.safetensors"), r"names a file outside of the folder: /b\.safetensors"),
    "a pickled shard": (with_index("b.bin"), r"names b\.bin, which is no safetensors file; convert it first"),
    "a linked shard": (
        with_index("b.safetensors", outside),
        r"is a link to a file outside .*elsewhere.*; copy it there",
    ),
    "tokenizer is no JSON": (with_file("tokenizer.json", "{"), LOADED % ""),
    "tokenizer without an entry": (with_file("tokenizer.json", "{}"), LOADED % "an entry 'added_tokens' is missing"),
    "tokenizer of no model": (lambda f: load_tokenizer(f / "no"), r"no such directory; expected a model directory"),
    "a classifier without head": (ClassifierScorer.from_pretrained, r"missing .*, first score\.weight"),
    "blocks beyond the last": (lambda f: load_first_blocks(f, 4), r"the model has 3 blocks; got 4 of them to load"),
    "an unknown backend": (
        lambda f: HookedModel.from_pretrained(f, "zork"),
        r"'zork'; expected one of torch, transfor",
    ),
    "a copy of another shape": (
        copy_with("model.norm.weight"),
        r"norm\.weight has shape \(32,\) there and \(3,\) here",
    ),
    "a copy of what is not there": (
        copy_with("zork"),
        r"no tensor named zork in the checkpoint, with or without '' in",
    ),
}
ERRORS = {"blocks beyond the last": ConfigError, "an unknown backend": BackendError}


@pytest.mark.parametrize("case", list(CASES))
def test_bad_checkpoints_are_refused_with_one_clear_line(case: str, copied: Path) -> None:
    act, message = CASES[case]
    with pytest.raises(ERRORS.get(case, CheckpointError), match=message) as raised:
        act(copied)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{}" + b"[" * 10**5,
        b'{"a": 3}',
        b'{"a": {"dtype": "F32"}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, "x"]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-9, 4]}}',
    ],
)
def test_headers_that_are_none_are_refused(header: bytes, tmp_path: Path) -> None:
    file = tmp_path / SINGLE
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(CheckpointError, match=r"not a safetensors file|lies outside of the file; download"):
        stored_tensors(file)


@pytest.mark.parametrize("dtype", ["F4", "zork"])
def test_numbers_of_an_unknown_kind_are_refused(dtype: str, tmp_path: Path) -> None:
    header = b'{"a": {"dtype": "%s", "shape": [1], "data_offsets": [0, 4]}}' % dtype.encode()
    (tmp_path / SINGLE).write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(CheckpointError, match=f"a: {dtype} is no dtype known here"):
        stored_tensors(tmp_path / SINGLE)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_quantised_weights_are_not_written_over(dtype: torch.dtype, copied: Path, tmp_path: Path) -> None:
    tensors = load_file(copied / SINGLE)
    name = next(name for name in tensors if name.endswith("down_proj.weight"))
    save_file(tensors | {name: tensors[name].to(dtype)}, copied / SINGLE, {"format": "pt"})
    with pytest.raises(CheckpointError, match=f"down_proj.weight is quantised to {dtype}"):
        write_changed(copied, tmp_path / "out", {name: tensors[name] + 1})
    assert not (tmp_path / "out").exists()


def test_shards_in_their_folder_and_in_the_hubs_cache_are_read(copied: Path) -> None:
    expected = load_model(copied)[0].state_dict()
    snapshot = copied.parent / "snapshots" / "main"
    sharded(copied)
    shutil.copytree(copied, snapshot)
    (copied.parent / "blobs").mkdir()
    for name in ("a.safetensors", "b.safetensors"):  # as huggingface_hub lays them out
        shutil.move(snapshot / name, copied.parent / "blobs" / name[0])
        (snapshot / name).symlink_to(f"../../blobs/{name[0]}")
    for folder in (copied, snapshot):
        found = load_model(folder)[0].state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_weights_that_the_config_has_no_place_for_are_said(copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "interp_unlearn"):
        with_config(num_hidden_layers=2)(copied)
        assert "9 weights have no place in the model of its config, first model.layers.2" in caplog.text
        caplog.clear()
        HookedModel.from_pretrained(copied, first_blocks=1)  # asked for, so nothing to say
    assert "have no place" not in caplog.text
