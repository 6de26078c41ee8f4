"""Whatever stands in a stored result or a checkpoint's files: it is read, or refused by the package's error."""

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TEXTS, make_hf, make_tokenizer
from fuzzing import JSON, bounded, read_or_refused
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from interp_unlearn import ActivationStore, HookedModel, ProbeSet, Site, collect, fit_probes
from interp_unlearn.artifacts import claim_folder, write_json, write_tensors
from interp_unlearn.attacks.attack import Record
from interp_unlearn.directions import Directions, read_directions
from interp_unlearn.drift import TunedLens
from interp_unlearn.evaluation import ToxicityResult
from interp_unlearn.models.checkpoint_copy import weight_files
from interp_unlearn.models.loading import load_config, load_tokenizer
from interp_unlearn.organism.world import world_of
from interp_unlearn.unlearning import Checkpoints

Read = Callable[[Path], object]
PLACES = (Site(0, "resid_post"), Site(1, "resid_post"))


def use_store(folder: Path) -> None:
    """Read all there is to read."""
    store = ActivationStore.open(folder / "store")
    for site in store.sites:
        store.array(site, slice(0, 2))
    for _ in (store.labels, store.groups, store.texts):
        pass


def use_probes(folder: Path) -> None:
    probes = ProbeSet.load(folder / "probes")
    probes.best()
    for site in probes.sites:
        probes.direction(site, "mean_difference")
        probes.bias(site)


def use_toxicity(folder: Path) -> None:
    result = ToxicityResult.load(folder / "toxicity")
    for _ in (result.scores, result.prompts, result.empty, result.prompt_toxicity):
        pass


def use_state(folder: Path) -> None:
    Checkpoints(folder / "state").load({"seed": 0})


def use_items(folder: Path) -> None:
    Record.load(folder / "items")


def use_index(folder: Path) -> None:
    weight_files(folder / "sharded")


RECORDS: dict[str, tuple[str, Read]] = {
    "store": ("store/index.json", use_store),
    "probes": ("probes/probes.json", use_probes),
    "toxicity": ("toxicity/toxicity.json", use_toxicity),
    "state": ("state/state.json", use_state),
    "items": ("items/record.json", use_items),
    "run": ("run/run.json", lambda folder: claim_folder(folder / "run", {"seed": 0})),
    "twin": ("twin/build.json", lambda folder: world_of(folder / "twin")),
    "shards": ("sharded/model.safetensors.index.json", use_index),
    "model": ("model/config.json", lambda folder: load_config(folder / "model")),
    "tokenizer": ("model/tokenizer.json", lambda folder: load_tokenizer(folder / "model")),
}
TABLES: dict[str, tuple[str, Read]] = {
    "store": ("store/rows.parquet", use_store),
    "probes": ("probes/table.parquet", use_probes),
    "toxicity": ("toxicity/generations.parquet", use_toxicity),
    "items": ("items/items-0.parquet", use_items),
}
TENSORS: dict[str, tuple[str, Read]] = {
    "store": ("store/rows-000000000.safetensors", use_store),
    "probes": ("probes/probes.safetensors", use_probes),
    "state": ("state/state-1.safetensors", use_state),
    "directions": ("directions.safetensors", lambda folder: read_directions(folder / "directions.safetensors")),
    "lens": ("lens.safetensors", lambda folder: TunedLens.load(folder / "lens.safetensors")),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of every kind of result, each of which can be read."""
    folder = tmp_path_factory.mktemp("results")
    model = HookedModel(make_hf("llama"), make_tokenizer(), name="tiny-llama")
    store = collect(model, TEXTS, PLACES, labels=[0, 1] * 2, out=folder / "store", progress=False)
    fit_probes(store, folds=2, bootstrap=0, progress=False).save(folder / "probes")
    model.hf.save_pretrained(folder / "model")
    model.tokenizer.save_pretrained(folder / "model")
    Directions({PLACES[0]: torch.ones(32)}, {PLACES[0]: 1.0}).save(folder / "directions.safetensors")
    lens = {"format": "interp_unlearn tuned lens", "last": "2.resid_post", "metadata": "{}"}
    square = {"0.resid_post.weight": torch.eye(3), "0.resid_post.bias": torch.ones(3)}
    write_tensors(folder / "lens.safetensors", square, lens | {"table": '{"layer": [0]}'})
    config = {"continuations": 2, "max_new_tokens": 4}
    write_json(folder / "toxicity" / "toxicity.json", {"config": config, "scorers": [{"name": "a"}], "model_hash": "x"})
    texts = {"prompt": "a", "text": "b", "prompt_toxicity": 0.5, "toxicity_a": 0.5}
    pd.DataFrame([texts] * 4).to_parquet(folder / "toxicity" / "generations.parquet")
    write_json(folder / "state" / "state.json", {"identity": {"seed": 0}, "step": 1})
    save_file({"w": torch.ones(3)}, folder / "state" / "state-1.safetensors")
    write_json(folder / "items" / "record.json", {"own": "correct"})
    items = {"id": ["0", "1"], "group": ["a", None], "score": [0.5, np.nan], "reason": [None, "too long"]}
    pd.DataFrame(items).to_parquet(folder / "items" / "items-0.parquet")
    write_json(folder / "run" / "run.json", {"identity": {"seed": 0}})
    write_json(folder / "twin" / "build.json", {"config": {"world_seed": 0}})
    write_json(folder / "sharded" / "model.safetensors.index.json", {"weight_map": {"w": "a.safetensors"}})
    save_file({"w": torch.ones(3)}, folder / "sharded" / "a.safetensors")
    return folder


@contextmanager
def kept(path: Path) -> Generator[bytes]:
    """What a file holds, which it holds again afterwards."""
    content = path.read_bytes()
    try:
        yield content
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("name", list(RECORDS | TABLES | TENSORS))
def test_what_was_made_is_read(name: str, folder: Path) -> None:
    for kinds in (RECORDS, TABLES, TENSORS):
        if name in kinds:
            kinds[name][1](folder)


@pytest.mark.parametrize("name", list(RECORDS))
def test_any_entry_of_a_record(name: str, folder: Path) -> None:
    file, read = RECORDS[name]
    record: dict[str, Any] = json.loads((folder / file).read_text())
    nested = [(outer, key) for outer, part in record.items() if isinstance(part, dict) for key in part]
    places: list[tuple[str, ...]] = [*((key,) for key in record), *nested]

    @bounded(30)
    @given(st.lists(st.tuples(st.sampled_from(places), JSON), max_size=2))
    def check(changes: list[tuple[tuple[str, ...], object]]) -> None:
        changed = json.loads(json.dumps(record))
        for (*outer, key), value in changes:
            part = changed[outer[0]] if outer else changed
            if isinstance(part, dict):
                part[key] = value
        (folder / file).write_text(json.dumps(changed))
        read_or_refused(partial(read, folder))

    with kept(folder / file):
        check()


COLUMNS = (st.integers(-9, 9), st.floats(), st.text(max_size=3), st.booleans(), st.none() | st.text(max_size=2))


@pytest.mark.parametrize("name", list(TABLES))
def test_any_table_in_the_place_of_one(name: str, folder: Path) -> None:
    file, read = TABLES[name]
    original = pd.read_parquet(folder / file)
    names = st.sampled_from(list(original.columns)) | st.text(max_size=3)

    @bounded(30)
    @given(st.data(), st.booleans(), st.sampled_from([len(original), 0, 1, 3]))
    def check(data: st.DataObject, beside: bool, rows: int) -> None:
        table = original.head(rows) if beside and rows <= len(original) else pd.DataFrame(index=range(rows))
        for column in data.draw(st.lists(names, max_size=2, unique=True)):
            values = data.draw(st.sampled_from(COLUMNS))
            table = table.assign(**{column: data.draw(st.lists(values, min_size=len(table), max_size=len(table)))})
        table.to_parquet(folder / file)
        read_or_refused(partial(read, folder))

    with kept(folder / file):
        check()


DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
SHAPES = st.lists(st.integers(0, 4), max_size=3)


@pytest.mark.parametrize("name", list(TENSORS))
def test_any_tensors_in_the_place_of_some(name: str, folder: Path) -> None:
    file, read = TENSORS[name]
    with safe_open(folder / file, framework="pt") as opened:
        metadata: dict[str, str] = opened.metadata() or {}
        original = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    names = st.sampled_from(list(original)) | st.text(max_size=3)
    words = st.text(max_size=4) | JSON.map(json.dumps)
    record = st.just(metadata) if not metadata else st.fixed_dictionaries({}, optional=dict.fromkeys(metadata, words))

    @bounded(30)
    @given(st.dictionaries(names, st.tuples(SHAPES, st.sampled_from(DTYPES)), max_size=2), st.booleans(), record)
    def check(tensors: dict[str, tuple[list[int], torch.dtype]], beside: bool, changes: dict[str, str]) -> None:
        made = {key: torch.ones(shape).to(dtype) for key, (shape, dtype) in tensors.items() if key.isprintable()}
        save_file({**(original if beside else {}), **made}, folder / file, metadata={**metadata, **changes})
        read_or_refused(partial(read, folder))

    with kept(folder / file):
        check()


@pytest.mark.parametrize("file", sorted({file for file, _ in [*RECORDS.values(), *TABLES.values(), *TENSORS.values()]}))
def test_any_byte_changed(file: str, folder: Path) -> None:
    reads = [read for known, read in [*RECORDS.values(), *TABLES.values(), *TENSORS.values()] if known == file]
    content = (folder / file).read_bytes()

    @bounded(12)
    @given(st.integers(0, len(content)), st.binary(max_size=3), st.integers(0, 3))
    def check(start: int, put: bytes, taken: int) -> None:
        (folder / file).write_bytes(content[:start] + put + content[start + taken :])
        for read in reads:
            read_or_refused(partial(read, folder))

    with kept(folder / file):
        check()
