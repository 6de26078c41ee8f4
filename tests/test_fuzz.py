"""Whatever stands in a data file, a setting or the name of a place: it is read, or refused by the package's error."""

import csv
import dataclasses
import inspect
import io
import json
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzzing import JSON, SCALARS, bounded, read_or_refused
from hypothesis import given
from hypothesis import strategies as st

from interp_unlearn import Add, Clamp, ProjectOut, Replace, Scale, Site, Span, Where
from interp_unlearn.artifacts import read_json, read_parquet, read_tensors
from interp_unlearn.attacks import Attack
from interp_unlearn.cli.inputs import parse_layers, parse_tokens, read_plain
from interp_unlearn.data import read_facts, read_pairs, read_prompts, read_questions, read_texts
from interp_unlearn.directions import Directions, read_directions
from interp_unlearn.drift import TunedLens
from interp_unlearn.errors import ConfigError, SiteError
from interp_unlearn.models.checkpoint_copy import stored_tensors
from interp_unlearn.sites import BLOCK_COMPONENTS
from interp_unlearn.unlearning import WeightEdit, build_method, build_rule, method_kinds
from interp_unlearn.unlearning.update_rules import RULES

FIELDS = st.lists(st.text(max_size=4) | st.sampled_from(["toxic", "neutral1", "A", '"', "\r"]), max_size=7)


def objects(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    """Objects that have some of the entries that a layout knows, and anything in them."""
    scored = st.fixed_dictionaries({"text": SCALARS, "toxicity": SCALARS})
    value = JSON | st.just("the cat") | st.just(["a", "b"]) | scored
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, value))


def as_lines(values: Sequence[object]) -> bytes:
    return "\n".join(map(json.dumps, values)).encode()


def as_table(rows: list[list[str]], delimiter: str, quoted: bool) -> bytes:
    if not quoted:
        return "\n".join(map(delimiter.join, rows)).encode("utf-8", "replace")
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    return text.getvalue().encode("utf-8", "replace")


QUESTIONS = objects("question", "choices", "answer", "subject")
FACTS = objects("question", "answer", "paraphrased_answer", "perturbed_answer")
CONTENT = (
    st.binary(max_size=80)
    | st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace"))
    | st.lists(JSON | objects("prompt", "continuation") | objects("text") | FACTS, max_size=3).map(as_lines)
    | st.lists(QUESTIONS, max_size=3).map(lambda rows: json.dumps(rows).encode())
    | st.builds(as_table, st.lists(FIELDS, max_size=4), st.sampled_from("\t,"), st.booleans())
    | st.lists(FIELDS, max_size=3).map(lambda rows: as_table([["toxic", "neutral1"], *rows], "\t", True))
)
HEADER = st.dictionaries(st.text(max_size=3), JSON | objects("dtype", "shape", "data_offsets"), max_size=2)
READERS: dict[str, tuple[Callable[[Path], object], ...]] = {
    "x.tsv": (read_pairs,),
    "x.csv": (read_questions,),
    "x.json": (read_questions, read_json, read_plain),
    "x.jsonl": (read_prompts, read_facts, read_texts, read_plain),
    "x.txt": (read_texts, read_plain),
    "x.parquet": (read_parquet,),
    "x.npy": (partial(read_directions, sites=Site.embed),),
    "x.safetensors": (read_tensors, stored_tensors, read_directions, Directions.load, TunedLens.load),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("name", list(READERS))
def test_any_content_of_a_data_file(name: str, folder: Path) -> None:
    @bounded(50)
    @given(CONTENT)
    def check(content: bytes) -> None:
        (folder / name).write_bytes(content)
        for read in READERS[name]:
            read_or_refused(partial(read, folder / name))

    check()


def test_any_header_of_tensors(folder: Path) -> None:
    @bounded(80)
    @given(HEADER, st.binary(max_size=9))
    def check(header: dict[str, Any], rest: bytes) -> None:
        text = json.dumps(header).encode()
        (folder / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + rest)
        for read in READERS["x.safetensors"]:
            read_or_refused(partial(read, folder / "x.safetensors"))

    check()


@bounded(100)
@given(st.none() | st.integers(-2, 10**7), st.sampled_from([*BLOCK_COMPONENTS, "embed", "logits"]))
def test_places_are_read_back_as_they_are_written(layer: int | None, component: str) -> None:
    try:
        site = Site(layer, component)
    except SiteError:
        return
    assert Site.parse(str(site)) == site


@bounded(120)
@given(st.text(max_size=12) | st.from_regex(r"\d{1,8}[.,:-]?[\dz]{0,8}"))
def test_any_text_for_a_place_layers_or_tokens(text: str) -> None:
    for read in (Site.parse, parse_layers, parse_tokens):
        read_or_refused(partial(read, text))


def settings_classes() -> Iterator[type]:
    """Every dataclass of settings in the package, whoever adds one."""
    for layer in (
        "directions",
        "drift",
        "evaluation",
        "unlearning",
        "attacks",
        "organism",
        "probes",
        "mechanism",
        "study",
    ):
        home = import_module(f"interp_unlearn.{layer}")
        for found in pkgutil.walk_packages(home.__path__, f"interp_unlearn.{layer}."):
            for name, kind in vars(import_module(found.name)).items():
                if not inspect.isclass(kind) or kind.__module__ != found.name or not dataclasses.is_dataclass(kind):
                    continue
                told = name.endswith(("Config", "Settings")) or issubclass(kind, Attack | WeightEdit)
                if told and not inspect.isabstract(kind):
                    yield kind


SETTINGS = {kind.__name__: kind for kind in settings_classes()}
PLACED: dict[str, Callable[..., object]] = {
    "Add": partial(Add, torch.ones(3)),
    "Clamp": partial(Clamp, torch.ones(3)),
    "ProjectOut": partial(ProjectOut, torch.ones(3)),
    "Replace": partial(Replace, torch.ones(3)),
    "Where": partial(Where, torch.ones(3)),
    "Scale": Scale,
    "Span": Span,
}
TOLD: dict[str, Callable[..., object]] = {**SETTINGS, **PLACED}


OBJECTS = {"directions", "teacher", "edits", "clean_share", "score", "scales"}
"""Options that no file can hold: models, tensors, functions."""


def test_the_settings_are_found() -> None:
    assert {"UnlearnConfig", "ToxicityConfig", "BuildConfig", "StudyConfig", "Prune", "ProFS", "Relearn"} <= set(
        SETTINGS
    )


@pytest.mark.parametrize("name", list(TOLD))
def test_any_value_of_a_setting(name: str) -> None:
    make = TOLD[name]
    fields = [field for field in inspect.signature(make).parameters.values() if field.kind is not field.VAR_KEYWORD]
    required = {field.name for field in fields if field.default is field.empty}

    @bounded(20)
    @given(st.fixed_dictionaries({}, optional=dict.fromkeys([field.name for field in fields], JSON)))
    def check(changes: dict[str, Any]) -> None:
        read_or_refused(lambda: make(**(dict.fromkeys(required, 1) | changes)))

    check()


@pytest.mark.parametrize("name", list(method_kinds()))
def test_any_option_of_a_method(name: str) -> None:
    with pytest.raises(ConfigError, match="its options are") as error:
        build_method(name, zork=1)
    options = set(filter(None, str(error.value).rpartition("its options are ")[2].split(", "))) - OBJECTS
    value = JSON | st.integers(0, 3) | st.lists(st.integers(0, 3), min_size=1, max_size=3)

    @bounded(20)
    @given(st.fixed_dictionaries({}, optional=dict.fromkeys(sorted(options), value)))
    def check(chosen: dict[str, Any]) -> None:
        read_or_refused(lambda: build_method(name, **chosen))

    check()


@pytest.mark.parametrize("name", list(RULES))
def test_any_option_of_an_update_rule(name: str) -> None:
    @bounded(20)
    @given(st.dictionaries(st.sampled_from(["momentum", "rank", "zork"]), JSON))
    def check(chosen: dict[str, Any]) -> None:
        read_or_refused(lambda: build_rule(name, **chosen))

    check()
