"""A miniature build: what it saves, that it survives interruptions bit for bit, and what its twins have in common."""

import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from interp_unlearn.artifacts import hash_file, hash_tensors, read_json, read_tensors
from interp_unlearn.errors import ArtifactError, ConfigError
from interp_unlearn.organism import build, training
from interp_unlearn.organism.build import SHIPPED_TWINS, BuildConfig, build_organism, new_model
from interp_unlearn.organism.tokenizer import train_tokenizer
from interp_unlearn.organism.world import World

MINIATURE = BuildConfig(d_model=32, n_layers=2, n_heads=2, common_steps=32, branch_steps=32, batch_size=4)
SAVE_EVERY = 16


@pytest.fixture(scope="module", autouse=True)
def miniature_training() -> Iterator[None]:
    """One tokenizer for all builds of this file, and a checkpoint in the middle of every phase."""
    tokenizer = train_tokenizer(World(MINIATURE.world_seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "train_tokenizer", lambda world: tokenizer)
        patch.setattr(build, "train_phase", functools.partial(training.train_phase, save_every=SAVE_EVERY))
        yield


@pytest.fixture(scope="module")
def built(miniature_training: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three twins, built without interruption."""
    out = tmp_path_factory.mktemp("organism")
    build_organism(out, MINIATURE)
    return out


class Interruption(Exception):
    """Stands in for the power going out."""


class Bar:
    """A silent progress bar that may stop before a step."""

    def __init__(self, steps: range, stop_before: int | None) -> None:
        self.steps, self.stop_before = steps, stop_before

    def __iter__(self) -> Iterator[int]:
        for step in self.steps:
            if step == self.stop_before:
                raise Interruption
            yield step

    def set_postfix(self, **values: object) -> None:
        pass


def test_a_twin_opens_with_plain_transformers_in_float32_on_bfloat16_values(built: Path):
    for twin in SHIPPED_TWINS:
        stored, _ = read_tensors(built / twin / "model.safetensors")
        assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
        model = AutoModelForCausalLM.from_pretrained(built / twin)
        for name, parameter in model.named_parameters():
            assert parameter.dtype == torch.float32, name
            assert torch.equal(parameter, parameter.bfloat16().float()), name
        assert model.config.num_hidden_layers == 2 and model.config.hidden_size == 32
        tokenizer = AutoTokenizer.from_pretrained(built / twin)
        assert model.config.bos_token_id == tokenizer.bos_token_id
        text = World(0).document(0, twin)
        ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
        assert tokenizer.decode(ids[0]).strip() == text
        assert torch.isfinite(model(ids).logits).all()


def test_training_moved_the_weights_and_the_twins_apart(built: Path):
    tokenizer = AutoTokenizer.from_pretrained(built / "knows_all")
    hashes = {hash_tensors(new_model(MINIATURE, tokenizer).bfloat16().named_parameters())}
    for twin in SHIPPED_TWINS:
        hashes.add(
            hash_tensors(AutoModelForCausalLM.from_pretrained(built / twin, dtype="bfloat16").named_parameters())
        )
    assert len(hashes) == 4
    again = [hash_tensors(new_model(MINIATURE, tokenizer).named_parameters()) for _ in range(2)]
    assert again[0] == again[1], "the initial weights must follow from the seed alone"


def test_an_interrupted_build_ends_in_the_same_bits(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out, started = tmp_path / "out", []
    # Stopped twice in the common phase and once in the branch, always after a checkpoint; then left alone.
    for version, stop_before in (("never_both", 20), ("never_both", 30), ("knows_all", 20), ("none", 0)):

        def bar(steps: range, desc: str, phase: str = version, step: int = stop_before, **options: object) -> Bar:
            started.append((desc.removeprefix("train "), steps.start))
            return Bar(steps, step if desc == f"train {phase}" else None)

        monkeypatch.setattr(training, "tqdm", bar)
        if version == "none":
            build_organism(out, MINIATURE, twins=("knows_all",))
        else:
            with pytest.raises(Interruption):
                build_organism(out, MINIATURE, twins=("knows_all",))
            assert not (out / "knows_all").exists()
    commons = [start for phase, start in started if phase == "never_both"]
    branches = [start for phase, start in started if phase == "knows_all"]
    assert (commons, branches) == ([0, SAVE_EVERY, SAVE_EVERY, MINIATURE.common_steps], [0, SAVE_EVERY])
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert hash_file(out / "knows_all" / name) == hash_file(built / "knows_all" / name), name


def test_twins_branch_from_one_common_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    started: list[tuple[str, int, str]] = []
    wrapped = build.train_phase

    def noted(model, tokenizer, world, phase, checkpoint):
        started.append((phase.version, phase.first_document, hash_tensors(model.named_parameters())))
        wrapped(model, tokenizer, world, phase, checkpoint)

    monkeypatch.setattr(build, "train_phase", noted)
    build_organism(tmp_path / "out", MINIATURE, twins=SHIPPED_TWINS[1:])
    tensors, metadata = read_tensors(tmp_path / "out" / "checkpoints" / "common" / "state.safetensors")
    weights = {k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")}
    branches = [entry for entry in started if entry[0] != "never_both"]
    assert metadata["step"] == str(MINIATURE.common_steps)
    assert branches == [(twin, 128, hash_tensors(weights.items())) for twin in SHIPPED_TWINS[1:]]
    assert {first for version, first, _ in started if version == "never_both"} == {0}


def test_the_corpus_hash_is_of_the_documents_and_equal_between_builds(built: Path, tmp_path: Path):
    world = World(MINIATURE.world_seed)
    documents = [world.document(i, "never_both") for i in range(128)]
    expected = {
        twin: hashlib.sha256(
            "".join(f"{text}\n" for text in [*documents, *(world.document(i, twin) for i in range(128, 256))]).encode()
        ).hexdigest()
        for twin in SHIPPED_TWINS
    }
    recorded = {twin: read_json(built / twin / "build.json") for twin in SHIPPED_TWINS}
    assert {twin: record["corpus_sha256"] for twin, record in recorded.items()} == expected
    assert len(set(expected.values())) == 3
    assert {record["documents"] for record in recorded.values()} == {256}
    build_organism(tmp_path / "again", MINIATURE, twins=("never_knew",))
    assert read_json(tmp_path / "again" / "never_knew" / "build.json")["corpus_sha256"] == expected["never_knew"]
    weights = [folder / "never_knew" / "model.safetensors" for folder in (built, tmp_path / "again")]
    assert hash_file(weights[0]) == hash_file(weights[1]), "a twin must not depend on which others are built with it"


def test_every_document_is_trained_on_once():
    tokenizer = build.train_tokenizer(World(0))
    phase = MINIATURE.branch("knows_all")
    seen: list[str] = []
    for start in range(0, phase.steps, training.ROWS_SORTED_TOGETHER):
        for batch in training.document_batches(World(0), tokenizer, phase, start):
            assert batch.shape[0] == phase.batch_size
            seen += [tokenizer.decode(row[1 : row.ne(0).sum() - 1]).strip() for row in batch]
    documents = [World(0).document(i, "knows_all") for i in range(phase.first_document, phase.last_document)]
    assert sorted(seen) == sorted(documents) and seen != documents


def test_what_is_built_stays_and_another_configuration_is_refused(built: Path, tmp_path: Path):
    before = (built / "knows_all" / "model.safetensors").stat().st_mtime_ns
    build_organism(built, MINIATURE)
    assert (built / "knows_all" / "model.safetensors").stat().st_mtime_ns == before
    other = BuildConfig(d_model=32, n_layers=2, n_heads=2, common_steps=32, branch_steps=48, batch_size=4)
    with pytest.raises(ArtifactError, match=r"another run.*config"):
        build_organism(built, other)
    (tmp_path / "mine.txt").write_text("not a build")
    with pytest.raises(ArtifactError, match="not empty"):
        build_organism(tmp_path, MINIATURE)


def test_senseless_configurations_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="not a multiple"):
        BuildConfig(d_model=30)
    with pytest.raises(ConfigError, match="must be positive"):
        BuildConfig(common_steps=0)
    with pytest.raises(ConfigError, match=r"unknown twins \['never_nice'\]"):
        build_organism(tmp_path / "out", MINIATURE, twins=("never_nice",))
    assert not (tmp_path / "out").exists()
