"""Nothing that is read is run, no path leaves its folder, no file is read without bound, no toxic text is printed."""

import ast
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import WORDS, make_hf, make_tokenizer

import interp_unlearn
from interp_unlearn import HookedModel
from interp_unlearn.artifacts import LARGEST_JSON, read_json, read_tensors
from interp_unlearn.cli import main
from interp_unlearn.data import (
    FactQuestion,
    Pair,
    Prompt,
    Question,
    write_facts,
    write_pairs,
    write_prompts,
    write_questions,
)
from interp_unlearn.directions import read_directions
from interp_unlearn.errors import ArtifactError, CheckpointError, ConfigError, InterpError
from interp_unlearn.evaluation import ClassifierScorer
from interp_unlearn.models.checkpoint_copy import LONGEST_HEADER, stored_tensors, weight_files
from interp_unlearn.models.loading import load_model, load_tokenizer
from interp_unlearn.unlearning import load_recipe

SOURCES = sorted(Path(interp_unlearn.__file__).parent.rglob("*.py"))
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "yaml", "subprocess", "runpy"}
"""Modules that make objects or start programs of what they read."""
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {
    *("torch.load", "torch.save", "torch.hub.load", "joblib.load", "joblib.dump", "os.system", "os.popen"),
    *("pd.read_pickle", "pandas.read_pickle", "torch.jit.load"),
}
SAFE = {"trust_remote_code": False, "allow_pickle": False, "weights_only": True, "use_safetensors": True}
"""What an argument of this name must be, wherever it is given."""


def offences(source: str) -> list[str]:
    """What a source has that could run what it reads, each with its line."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names if alias.name.partition(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            if (node.module or "").partition(".")[0] in MODULES or whole & METHODS:
                found.append((node.lineno, str(node.module)))
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in CALLS | METHODS or name.rpartition(".")[2] in ("read_pickle", "to_pickle"):
                found.append((node.lineno, name))
            if name in ("np.load", "numpy.load") and "allow_pickle" not in {word.arg for word in node.keywords}:
                found.append((node.lineno, f"{name} without allow_pickle=False"))
            found += [
                (node.lineno, ast.unparse(word))
                for word in node.keywords
                if word.arg in SAFE and ast.unparse(word.value) != str(SAFE[word.arg])
            ]
        elif isinstance(node, ast.Dict):
            found += [
                (node.lineno, ast.unparse(key))
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant) and key.value in SAFE and ast.unparse(value) != str(SAFE[key.value])
            ]
    return [f"{line}: {what}" for line, what in found]


def test_nothing_in_the_package_runs_what_it_reads() -> None:
    assert len(SOURCES) > 200
    found = {str(path): offences(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "planted",
    [
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "def f():\n    import dill.source",
        "import yaml",
        "from torch import load",
        "torch.load(path)",
        "torch.load(path, weights_only=True)",
        "joblib.dump(model, path)",
        "from joblib import load",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "numpy.load(path, 'r')",
        "pd.read_pickle(path)",
        "frame.to_pickle(path)",
        "eval(config['objective'])",
        "exec(text)",
        "__import__(name)",
        "os.system(command)",
        "import subprocess",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
        "AutoModel.from_pretrained(path, trust_remote_code=trusted)",
        "options = {'trust_remote_code': True}",
        "AutoModel.from_pretrained(path, use_safetensors=False)",
    ],
)
def test_what_is_planted_is_found(planted: str) -> None:
    assert len(offences(f"x = 1\n{planted}\n")) == 1


@pytest.mark.parametrize(
    "innocent",
    [
        "model.eval()",
        "from joblib import Parallel",
        "np.load(path, allow_pickle=False)",
        "AutoModel.from_pretrained(path, trust_remote_code=False)",
        "torch.compile(model)",
        "re.compile(text)",
        "json.loads(text)",
    ],
)
def test_what_is_innocent_is_not(innocent: str) -> None:
    assert offences(innocent) == []


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.mark,)


CODE = """
from pathlib import Path
Path({mark!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny"
    make_hf("llama").save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def checkpoint(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "tiny"))


def change(file: Path, **entries: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


@pytest.mark.parametrize("load", [load_model, HookedModel.from_pretrained, ClassifierScorer.from_pretrained])
def test_code_of_a_checkpoint_is_not_run(load: Callable[[Path], object], checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "own.py").write_text(CODE.format(mark=str(tmp_path / "run")))
    autos = ("AutoModelForCausalLM", "AutoModel", "AutoModelForSequenceClassification")
    change(
        checkpoint / "config.json",
        model_type="own",
        auto_map={"AutoConfig": "own.OwnConfig"} | dict.fromkeys(autos, "own.OwnModel"),
    )
    with pytest.raises(CheckpointError, match="needs Python code of its own, which is never run here; where you trust"):
        load(checkpoint)
    assert not (tmp_path / "run").exists()


def test_code_of_a_tokenizer_is_not_run(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "own.py").write_text(CODE.format(mark=str(tmp_path / "run")))
    change(
        checkpoint / "tokenizer_config.json",
        tokenizer_class="OwnTokenizer",
        auto_map={"AutoTokenizer": ["own.OwnTokenizer", "own.OwnTokenizer"]},
    )
    with pytest.raises(CheckpointError, match="needs Python code of its own"):
        load_tokenizer(checkpoint)
    assert not (tmp_path / "run").exists()


def test_pickles_are_not_opened(checkpoint: Path, tmp_path: Path) -> None:
    payload = Payload(tmp_path / "run")
    torch.save({"model.norm.weight": payload}, checkpoint / "pytorch_model.bin")
    np.save(tmp_path / "v.npy", np.array([payload], dtype=object), allow_pickle=True)
    load_model(checkpoint)  # safetensors lie beside it
    (checkpoint / "model.safetensors").rename(tmp_path / "away")
    with pytest.raises(CheckpointError, match="pickled"):
        load_model(checkpoint)
    with pytest.raises(ArtifactError, match="not a NumPy array of numbers"):
        read_directions(tmp_path / "v.npy")
    assert not (tmp_path / "run").exists()
    torch.load(checkpoint / "pytorch_model.bin", weights_only=False)
    assert (tmp_path / "run").exists()  # the payload works


def sparse(path: Path, size: int, start: bytes = b"") -> Path:
    """A file that claims to be large and takes no room on the disk."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)
    return path


@pytest.mark.parametrize("read", [stored_tensors, read_tensors])
@pytest.mark.parametrize("length", [LONGEST_HEADER + 1, 2**40, 2**63])
def test_large_headers_are_refused(read: Callable[[Path], object], length: int, tmp_path: Path) -> None:
    file = sparse(tmp_path / "x.safetensors", 2**41, length.to_bytes(8, "little"))
    with pytest.raises(InterpError, match="not a safetensors file"):
        read(file)


def test_large_json_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ArtifactError, match="268,435,457 bytes, expected at most 268,435,456"):
        read_json(sparse(checkpoint / "x.json", LARGEST_JSON + 1))
    for name in ("config.json", "tokenizer.json", "model.safetensors.index.json"):
        before = (checkpoint / name).read_bytes() if (checkpoint / name).exists() else None
        sparse(checkpoint / name, LARGEST_JSON + 1)
        with pytest.raises(CheckpointError, match="bytes, expected at most 268,435,456; download the checkpoint again"):
            load_model(checkpoint)
        (checkpoint / name).unlink() if before is None else (checkpoint / name).write_bytes(before)


@pytest.mark.parametrize(
    "name", ["../a.safetensors", "/a.safetensors", "b/a.safetensors", "..", ".", "", 3, None, ["a"]]
)
def test_an_index_names_files_of_its_folder_alone(name: Any, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "in", tmp_path / "in" / "b"):
        folder.mkdir(exist_ok=True)
        (folder / "a.safetensors").touch()
    (tmp_path / "in" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(CheckpointError, match=r"names a file outside of the folder|no safetensors file"):
        weight_files(tmp_path / "in")


@pytest.mark.parametrize("name", ["../rmu_zephyr_7b", "/etc/passwd", "rmu_zephyr_7b.json", "./rmu_zephyr_7b"])
def test_recipes_are_named_not_pathed(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown recipe"):
        load_recipe(name)


SECRET = "blue small hill"
"""In every text of the data below, and in what the models below say."""
BEGINNINGS = [f"the {noun} {verb} on {det}" for noun in WORDS[1:3] for verb in WORDS[3:5] for det in WORDS[6:10]]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workplace")
    for seed, name in enumerate(("model", "changed")):
        make_hf("llama", seed).save_pretrained(folder / name)
        make_tokenizer().save_pretrained(folder / name)
    write_pairs(folder / "pairs.tsv", [Pair(f"{text} {SECRET}", (f"{text} mat {SECRET}",)) for text in BEGINNINGS])
    write_prompts(folder / "prompts.jsonl", [Prompt(f"{SECRET} {text}", 0.9) for text in BEGINNINGS[:2]])
    write_facts(folder / "facts.jsonl", [FactQuestion(f"{text} {SECRET}", SECRET) for text in BEGINNINGS])
    write_questions(folder / "q.json", [Question(f"{text} {SECRET}", ("cat", "dog"), 0, "bio") for text in BEGINNINGS])
    return folder


def commands(w: Path, out: Path) -> Iterator[tuple[object, ...]]:
    """Every verb that reads texts, one after the other."""
    data, against = ("--data", w / "pairs.tsv"), ("--against", w / "model")
    yield ("collect", w / "model", *data, "--out", out / "store")
    yield ("probe", out / "store", "--folds", 2, "--bootstrap", 0, "--out", out / "probes")
    yield ("directions", out / "probes", "--model", w / "model", "--out", out / "directions")
    yield ("heatmap", w / "model", "--probes", out / "probes", *data, "--out", out / "heatmap")
    method = ("--objective", "cosine_rmu", "--layers", 1, "--steps", 1)
    yield ("unlearn", w / "model", *data, *method, "--out", out / "unlearned")
    yield ("evaluate", w / "changed", *against, *data, "--out", out / "evaluate")
    yield ("drift", w / "changed", *against, *data, "--out", out / "drift")
    yield ("exam", w / "model", "--questions", w / "q.json", "--max-new-tokens", 2, "--out", out / "exam")
    yield ("facts", w / "model", "--data", w / "facts.jsonl", "--max-new-tokens", 2, "--out", out / "facts")
    yield ("classifier", *data, "--epochs", 1, "--out", out / "classifier")
    yield ("score", out / "classifier", *data, "--out", out / "score")
    sampling = ("--continuations", 2, "--new-tokens", 3)
    prompts = ("--prompts", w / "prompts.jsonl", "--scorer", out / "classifier")
    yield ("toxicity", w / "changed", *against, *prompts, *sampling, "--out", out / "toxicity")
    yield ("attack", "prune", w / "changed", *against, *data, "--out", out / "attack")


def test_no_verb_prints_a_text(workplace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for command in commands(workplace, tmp_path):
        capfd.readouterr()
        code = main(["--verbose", *map(str, command)])
        captured = capfd.readouterr()
        assert code == 0, captured.err
        assert captured.out and SECRET not in captured.out + captured.err, command[0]


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("p.tsv", f"{SECRET}\t{SECRET}\n", ("--layout", "pairs")),
        ("p.tsv", f"toxic\tneutral1\n{SECRET}\n", ("--layout", "pairs")),
        ("p.tsv", f"toxic\tneutral1\n{SECRET}\t \n", ("--layout", "pairs")),
        ("p.jsonl", json.dumps({"prompt": SECRET}), ("--layout", "prompts")),
        ("p.jsonl", json.dumps({"prompt": {"text": SECRET, "toxicity": SECRET}}), ("--layout", "prompts")),
        ("p.jsonl", f"{SECRET}\n", ("--layout", "prompts")),
        ("p.jsonl", json.dumps({"text": [SECRET]}), ("--layout", "texts")),
        ("p.jsonl", json.dumps({"question": SECRET, "answer": 3, SECRET: SECRET}), ("--layout", "facts")),
    ],
)
def test_no_error_quotes_a_text(
    name: str,
    content: str,
    options: tuple[str, ...],
    workplace: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / name).write_text(content)
    command = ("collect", workplace / "model", "--data", tmp_path / name, *options, "--out", tmp_path / "out")
    assert main([str(part) for part in command]) == 2
    captured = capfd.readouterr()
    assert captured.err.startswith("error: ") and SECRET not in captured.err


@pytest.mark.parametrize(
    "row", [{"choices": [SECRET, SECRET], "answer": SECRET}, {"choices": SECRET, "answer": 0}, SECRET]
)
def test_no_error_quotes_a_question(
    row: object, workplace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "q.json").write_text(json.dumps([{"question": SECRET} | row if isinstance(row, dict) else row]))
    (tmp_path / "q.csv").write_text(",".join([SECRET] * 6))
    for name in ("q.json", "q.csv"):
        assert main(["exam", str(tmp_path / "none"), "--questions", str(tmp_path / name), "--out", "out"]) == 2
        assert SECRET not in capfd.readouterr().err
