"""Datasets, probes and twins by their names on the hub: the right rows, the commit, and one line for what is wrong."""

import json
import logging
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import make_hf, make_tokenizer
from hub_cache import COMMIT, files_of, make_probes, put_in_cache
from huggingface_hub.errors import GatedRepoError

from interp_unlearn import HookedModel, ProbeSet
from interp_unlearn.cli import main
from interp_unlearn.data import (
    Pair,
    hub_dataset,
    read_facts,
    read_pairs,
    read_prompts,
    read_questions,
    read_texts,
    write_questions,
    write_texts,
)
from interp_unlearn.data.hub import KNOWN
from interp_unlearn.errors import ConfigError, DataError, HubError
from interp_unlearn.organism.pretrained import Organism
from interp_unlearn.snapshots import Address, source_of

QUESTIONS = [{"question": f"q{i}", "choices": ["a", "b", "c", "d"], "answer": i % 4} for i in range(3)]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All known datasets in the layout that is assumed; also where the verbs look."""
    cache, made = tmp_path / "cache", tmp_path / "made"
    made.mkdir()
    pd.DataFrame(QUESTIONS).to_parquet(made / "wmdp.parquet")
    pd.DataFrame([{**row, "subject": "anatomy"} for row in QUESTIONS]).to_parquet(made / "mmlu.parquet")
    pd.DataFrame({"text": ["one", "", "two\nlines"]}).to_parquet(made / "corpus.parquet")
    pairs = 'en_toxic_comment\ten_neutral_comment\nbad\tgood\n"a ""b"""\tc\nbad\tfine\n'
    prompt = {"prompt": {"text": "and then", "toxicity": 0.7}, "continuation": {"text": " it ran"}}
    plain = {
        "s-nlp/paradetox": {"train.tsv": write(made / "train.tsv", pairs)},
        "allenai/real-toxicity-prompts": {"prompts.jsonl": write(made / "prompts.jsonl", json.dumps(prompt) + "\n")},
        "locuslab/TOFU": {"forget10.json": write(made / "f.json", '{"question": "who", "answer": "they"}\n')},
        "cais/wmdp": {"wmdp-cyber/test-00000-of-00001.parquet": made / "wmdp.parquet"},
        "cais/mmlu": {f"all/{split}-00000-of-00001.parquet": made / "mmlu.parquet" for split in ("test", "validation")},
        "cais/wmdp-corpora": {
            "cyber-forget-corpus/train-00000-of-00001.parquet": made / "corpus.parquet",
            "bio-retain-corpus/train-00000-of-00002.parquet": made / "corpus.parquet",
            "bio-retain-corpus/train-00001-of-00002.parquet": made / "corpus.parquet",
        },
        "mine/texts": {"sub/texts.txt": write(made / "texts.txt", "the cat\nthe dog\n")},
    }
    assert KNOWN.keys() < plain.keys()
    for repo, files in plain.items():
        put_in_cache(cache, repo, files)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    return cache


def test_known_names_give_the_rows_and_the_commit(cache: Path) -> None:
    found = hub_dataset("cais/wmdp", "wmdp-cyber", revision="main", cache_dir=cache)
    assert found.commit == COMMIT and found.file == "wmdp-cyber/test-00000-of-00001.parquet"
    assert str(found) == f"cais/wmdp/{found.file}@{COMMIT}"
    assert source_of(found.path) == {
        "kind": "dataset",
        "repo": "cais/wmdp",
        "commit": COMMIT,
        "file": "wmdp-cyber/test-00000-of-00001.parquet",
    }
    asked = read_questions(found.path)
    assert [(q.question, q.answer, q.subject) for q in asked] == [(f"q{i}", i % 4, "wmdp-cyber") for i in range(3)]
    mmlu = hub_dataset("cais/mmlu", "all", revision=COMMIT, split="validation", cache_dir=cache)
    assert "validation" in mmlu.file and {q.subject for q in read_questions(mmlu.path)} == {"anatomy"}
    prompts = hub_dataset("allenai/real-toxicity-prompts", revision="main", cache_dir=cache)
    assert read_prompts(prompts.path)[0].toxicity == 0.7
    tofu = hub_dataset("locuslab/TOFU", "forget10", revision="main", cache_dir=cache)
    assert read_facts(tofu.path)[0].answer == "they"
    corpus = hub_dataset("cais/wmdp-corpora", "cyber-forget-corpus", revision="main", cache_dir=cache)
    assert read_texts(corpus.path) == ["one", "two\nlines"]
    texts = hub_dataset("mine/texts", revision="main", file="sub/texts.txt", cache_dir=cache)
    assert read_texts(texts.path) == ["the cat", "the dog"]


def test_rewrites_of_one_sentence_are_one_pair(cache: Path) -> None:
    found = read_pairs(hub_dataset("s-nlp/paradetox", revision="main", cache_dir=cache).path)
    assert found == [Pair("bad", ("good", "fine")), Pair('a "b"', ("c",))]


def test_parquet_and_json_hold_the_same_questions(tmp_path: Path) -> None:
    pd.DataFrame([{**row, "subject": "things"} for row in QUESTIONS]).to_parquet(tmp_path / "a.parquet")
    asked = read_questions(tmp_path / "a.parquet")
    write_questions(tmp_path / "a.json", asked)
    assert read_questions(tmp_path / "a.json") == asked


@pytest.mark.parametrize(
    ("name", "given", "error", "match"),
    [
        ("cais/wmdp", {"config": "wmdp-cyber", "revision": ""}, ConfigError, "expected a commit, got nothing"),
        ("cais/wmdp", {}, ConfigError, "expected a configuration, for example wmdp-cyber, got none"),
        ("cais/wmdp", {"config": "wmdp-cyber", "split": "dev"}, ConfigError, "a split of test, got dev"),
        ("cais/wmdp", {"config": "../x"}, ConfigError, "expected a configuration"),
        ("cais/wmdp", {"config": "wmdp-chem"}, DataError, r"holds no wmdp-chem/test-\*.parquet; look at"),
        ("s-nlp/paradetox", {"config": "en"}, ConfigError, "expected no configuration, got en"),
        ("cais/wmdp-corpora", {"config": "bio-retain-corpus"}, DataError, "in 2 files, expected one; name it"),
        ("mine/texts", {}, ConfigError, "layout of this dataset is not known.*name its file"),
        ("mine/texts", {"file": "loader.py"}, ConfigError, "scripts are never fetched or run"),
        ("mine/texts", {"file": "../../x.txt"}, ConfigError, "path of one file"),
        ("nobody/nothing", {"file": "a.txt"}, HubError, "cannot be fetched.*or give a local path"),
        ("mine/texts", {"file": "sub/texts.txt", "revision": "v9"}, HubError, "mine/texts at v9: cannot be fetched"),
    ],
)
def test_what_is_not_there_is_said(cache: Path, name: str, given: dict[str, Any], error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        hub_dataset(name, cache_dir=cache, **{"revision": "main"} | given)


def test_a_gated_dataset_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise GatedRepoError.__new__(GatedRepoError)

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(HubError, match=r"is gated: ask for access at https://huggingface.co/datasets/a/b"):
        hub_dataset("a/b", revision="main", file="x.txt")


def test_only_the_wanted_file_is_asked_for_and_a_branch_is_warned_of(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[dict[str, Any]] = []

    def fetch(repo: str, **given: object) -> str:
        asked.append({"repo": repo, **given})
        return str(cache / "datasets--mine--texts" / "snapshots" / COMMIT)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    with caplog.at_level(logging.WARNING):
        hub_dataset("mine/texts", revision="main", file="sub/texts.txt")
    assert asked[0]["allow_patterns"] == ["sub/texts.txt"] and asked[0]["repo_type"] == "dataset"
    assert f"main may move; it is now {COMMIT}" in caplog.text
    caplog.clear()
    hub_dataset("mine/texts", revision=COMMIT, file="sub/texts.txt")
    assert not caplog.text


@pytest.mark.parametrize("frame", [pd.DataFrame({"prompt": ["x"], "label": [1]}), pd.DataFrame({"text": []})])
def test_other_columns_are_named(tmp_path: Path, frame: pd.DataFrame) -> None:
    frame.to_parquet(tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"expected the columns text, found prompt, label: no text|the file is empty"):
        read_texts(tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"expected the columns question, choices, answer, found"):
        read_questions(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="not a Parquet file"):
        read_texts(write(tmp_path / "y.parquet", "no"))


def test_addresses() -> None:
    assert Address.parse("hub:a/b@main") == Address("a/b", "", "main")
    assert Address.parse("hub:a/b/c/d.jsonl@refs/pr/1") == Address("a/b", "c/d.jsonl", "refs/pr/1")
    for wrong, match in (("hub:a/b/c", "states no revision"), ("hub:a@main", "OWNER/NAME"), ("hub:a/b@", "states no")):
        with pytest.raises(ConfigError, match=match):
            Address.parse(wrong)


def test_a_verb_takes_an_address_and_its_record_names_the_commit(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    HookedModel(make_hf("llama"), make_tokenizer()).save_pretrained(tmp_path / "model")
    put_in_cache(cache, "mine/model", files_of(tmp_path / "model"), kind="model")
    here = str(tmp_path / "out")
    words = ["--data", "hub:mine/texts/sub/texts.txt@main", "--neutral", str(write(tmp_path / "n.txt", "yes\nno\n"))]
    original = ["--against", str(tmp_path / "model"), "--layout", "texts", "--out", here]
    original += ["--site", "1.resid_post", "--site", "1.mlp_out"]  # of two components no figure is drawn
    assert main(["drift", "hub:mine/model@main", *original, *words]) == 0
    inputs = json.loads((tmp_path / "out" / "run.json").read_text())["inputs"]
    assert inputs["model"] == {"kind": "model", "repo": "mine/model", "commit": COMMIT}
    assert inputs["against"] == {"name": "model"}
    assert inputs["data"] | {"sha256": ""} == {
        "kind": "dataset",
        "repo": "mine/texts",
        "commit": COMMIT,
        "file": "sub/texts.txt",
        "sha256": "",
    }
    assert inputs["neutral"]["name"] == "n.txt" and str(tmp_path) not in json.dumps(inputs)
    # The same from local files is the same run: identity is what is in them.
    write_texts(tmp_path / "local.txt", ["the cat", "the dog"])
    assert main(["drift", str(tmp_path / "model"), *original, "--data", str(tmp_path / "local.txt"), *words[2:]]) == 0
    assert main(["exam", "M", "--questions", "hub:cais/wmdp/wmdp-cyber", "--out", str(tmp_path / "x")]) == 2
    assert "states no revision; write hub:cais/wmdp/wmdp-cyber@COMMIT" in capsys.readouterr().err


def test_probes_go_to_a_folder_and_to_the_hub_and_back(tmp_path: Path) -> None:
    probes = make_probes()
    probes.save_pretrained(tmp_path / "probes")
    put_in_cache(tmp_path / "cache", "mine/probes", files_of(tmp_path / "probes"), kind="model")
    for again in (
        ProbeSet.from_pretrained(tmp_path / "probes"),
        ProbeSet.from_pretrained("mine/probes", revision="main", cache_dir=tmp_path / "cache"),
    ):
        assert again.sites == probes.sites and again.metadata == probes.metadata
        assert torch.equal(torch.stack([*again.directions]), torch.tensor([[0.6, 0.8]])) and torch.equal(
            again.scales, probes.scales
        )
    with pytest.raises(ConfigError, match="expected a commit, got nothing"):
        ProbeSet.from_pretrained("mine/probes", cache_dir=tmp_path / "cache")
    with pytest.raises(ConfigError, match="is a local folder and has no revision"):
        ProbeSet.from_pretrained(tmp_path / "probes", revision="main")
    with pytest.raises(HubError, match=r"holds no probes.json"):
        ProbeSet.from_pretrained(tmp_path)
    with pytest.raises(HubError, match="no such folder; expected one, or a hub id"):
        ProbeSet.from_pretrained(tmp_path / "elsewhere")


def test_the_organism_is_copied_whole_and_comes_back(tmp_path: Path) -> None:
    shipped = Organism.from_pretrained()
    shipped.save_pretrained(tmp_path / "organism")
    copy = Organism.from_pretrained(tmp_path / "organism")
    assert copy.twins == shipped.twins == ("knows_all", "never_knew", "never_toxic")
    assert copy.hashes() == shipped.hashes()
    assert copy.load("never_knew").hash() == shipped.load("never_knew").hash()
    card = (tmp_path / "organism" / "README.md").read_text()
    assert all(digest in card for digest in shipped.hashes().values())
    put_in_cache(tmp_path / "cache", "mine/organism", files_of(tmp_path / "organism"), kind="model")
    far = Organism.from_pretrained("mine/organism", revision="main", cache_dir=tmp_path / "cache")
    assert far.hashes() == shipped.hashes() and far.path("knows_all").parent.name == COMMIT
