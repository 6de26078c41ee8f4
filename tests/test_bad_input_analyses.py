"""Bad input, analyses: settings of attacks, of studies, of update rules, and the records that they leave."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from interp_unlearn.artifacts import write_json, write_tensors
from interp_unlearn.attacks import (
    AblateDirection,
    AblateSubspace,
    Completions,
    FewShot,
    NeuronScaling,
    Prune,
    Quantise,
    Reformat,
    Relearn,
    SteerBack,
)
from interp_unlearn.attacks.attack import Record
from interp_unlearn.drift import TunedLens, TunedLensConfig
from interp_unlearn.errors import ArtifactError, ConfigError, DataError, InterpError
from interp_unlearn.organism.training import Phase
from interp_unlearn.organism.world import world_of
from interp_unlearn.study.comparison import ComparisonConfig
from interp_unlearn.study.plan import StudyConfig
from interp_unlearn.study.replication import ReplicationConfig
from interp_unlearn.unlearning import Checkpoints, UnlearnData, build_method, build_rule

Act = Callable[[], object]


def told(make: Callable[..., object], /, *values: Any, **settings: Any) -> Act:
    """Make something of settings."""
    return lambda: make(*values, **settings)


SETTINGS: dict[str, tuple[Act, str]] = {
    "prune": (told(Prune, (2.0,)), r"sparsities: expected shares from 0 to below 1, got \(2\.0,\)"),
    "quantise": (told(Quantise, (1,)), r"bits: expected 2 to 16, got \(1,\)"),
    "quantise by text": (told(Quantise, "4"), r"bits: expected a list, each a whole number, got '4'"),
    "subspaces": (told(AblateSubspace, ranks=(-1,)), r"ranks: expected 0 or more, got \(-1,\)"),
    "directions": (
        told(AblateDirection, ("there",)),
        r"where: expected a list, each one of own, one, last, got \('th",
    ),
    "steering": (
        told(SteerBack, coefficients=()),
        r"expected a vector, a coefficient, a layer and n_random of 0 or",
    ),
    "neurons": (told(NeuronScaling, n_neurons=0), r"n_neurons of at least 1, a factor and n_random of 0 or more, got"),
    "wording": (told(Reformat, wordings=("x",)), r"wording 'x' has no \{prompt\}, so nothing would be asked"),
    "shots": (told(FewShot, shots=(0,)), r"expected shots of at least 1, and examples, got \(0,\)"),
    "rates": (told(Relearn, learning_rates=(0.0,)), r"expected positive learning_rates and checkpoints from 1, got"),
    "steps": (told(Relearn, checkpoints=(0,)), r"expected positive learning_rates and checkpoints from 1, got"),
    "batch": (told(Completions, ["a"], ["b"], batch_size=0), r"batch_size must be at least 1, got 0"),
    "study": (told(StudyConfig, steps=0), r"a study needs a seed and a step, got seeds \(0, 1, 2\) and 0 steps"),
    "study's seeds": (told(StudyConfig, (0.5,)), r"seeds: expected a list, each a whole number, got \(0\.5,\)"),
    "study's layer": (told(StudyConfig, single_layer=1), r"single_layer 1 must be one of multi_layers \(2, 3, 4, 5\)"),
    "replication": (told(ReplicationConfig, 1), r"needs two organisms, got 1; for one there is `reproduce`"),
    "replication by text": (told(ReplicationConfig, "8"), r"organisms: expected a whole number, got '8'"),
    "comparison": (told(ComparisonConfig, steps=0), r"a comparison needs a seed and a step, got seeds .* and 0 steps"),
    "comparison of one": (told(ComparisonConfig, only="rmu"), r"only: expected a list, each text, got 'rmu'"),
    "lens": (told(TunedLensConfig, held_out=1.0), r"held_out: expected a share between 0 and 1, got 1\.0"),
    "lens's steps": (told(TunedLensConfig, steps=None), r"steps: expected a whole number, got None"),
    "phase": (told(Phase, "knows_all", 15, 0, 1, 1e-3, 0.1, 1), r"steps must be a multiple of 16, got 15"),
    "phase's rate": (told(Phase, "knows_all", 16, 0, 1, "x", 0.1, 1), r"peak_rate: expected a finite number, got 'x'"),
    "rule": (told(build_rule, "mask_by_sign", momentum=1.0), r"momentum must lie between 0 and 1, got 1\.0"),
    "rule's option": (told(build_rule, "mask_by_sign", zork=1), r"unexpected .* 'zork'; its options are momentum"),
    "rule by text": (told(build_rule, "collapse_components", rank="8"), r"rank: expected a whole number, got '8'"),
    "state": (told(Checkpoints, 3), r"folder: expected Path, got 3"),
    "seed": (told(build_method, "cosine_rmu", layers=1, seed="x"), r"seed: expected a whole number, got 'x'"),
    "rank": (told(build_method, "profs", rank="two"), r"profs: rank: expected a whole number, got 'two'"),
    "coefficients": (told(build_method, "task_vector", coefficient=[]), r"must be more than 0 and finite, got \[\]"),
    "layer weights": (
        told(build_method, "probe_multi", layers=[1, 2], directions={}, layer_weights={"1": 1.0}),
        r"layer_weights: expected a map to a finite number or None, got \{'1': 1\.0\}",
    ),
    "no direction": (
        told(build_method, "probe_multi", layers=[1, 2], directions={}),
        r"no direction for layer 1; there are some for layers \[\]",
    ),
}
TEXTS: dict[str, tuple[Act, str]] = {
    "one text asked": (told(Completions, "ab", ["c", "d"]), r"prompts: expected a list, got str; wrap it in a list"),
    "completions": (told(Completions, ["a"], ["c", "d"]), r"completions: 2 for 1 items; expected one each"),
    "a number": (told(UnlearnData, 3), r"forget: expected a list of texts, got int"),
    "columns": (
        told(UnlearnData, {"text": ["a"], "label": [1]}),
        r"forget: expected a list of texts, got a table; g",
    ),
    "a table": (told(UnlearnData, ["a"], pd.DataFrame({"text": ["a"]})), r"retain: expected a list of texts, got a t"),
    "none retained": (told(UnlearnData, ["a"], retain=None), r"retain: expected a list of texts, got NoneType"),
}
ITEMS = {"id": ["0"], "group": ["a"], "score": [0.5], "reason": [None]}
SQUARE = {"0.resid_post.weight": torch.eye(3), "0.resid_post.bias": torch.ones(3)}
LENS = {"format": "interp_unlearn tuned lens", "last": "2.resid_post", "table": '{"layer": [0]}', "metadata": "{}"}


def items(**change: object) -> Callable[[Path], object]:
    """The record of an attack with another column."""

    def act(folder: Path) -> object:
        write_json(folder / "record.json", {"own": "correct"})
        table = {name: column for name, column in (ITEMS | change).items() if column is not ...}
        pd.DataFrame(table).to_parquet(folder / "items-0.parquet")
        return Record.load(folder)

    return act


def lens(tensors: dict[str, torch.Tensor] | None = None, **change: str) -> Callable[[Path], object]:
    """A tuned lens of other tensors, or with another record."""

    def act(folder: Path) -> object:
        write_tensors(folder / "lens.safetensors", SQUARE if tensors is None else tensors, LENS | change)
        return TunedLens.load(folder / "lens.safetensors")

    return act


def twin(record: object) -> Callable[[Path], object]:
    def act(folder: Path) -> object:
        write_json(folder / "build.json", record)
        return world_of(folder)

    return act


def recorded(record: object) -> Callable[[Path], object]:
    def act(folder: Path) -> object:
        write_json(folder / "record.json", record)
        return Record.load(folder)

    return act


RECORDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "items: a list": (recorded([]), r"record\.json: expected a JSON object, got list; write the artifact again"),
    "items: no table": (recorded({"own": "correct"}), r"items-0\.parquet: no such file; expected an artifact written"),
    "items: no scores": (items(score=...), r"items of correct: has no column score; run the attacks again"),
    "items: words": (
        items(score=["high"]),
        r"items of correct: score: expected numbers, got .*; run the attacks",
    ),
    "items: no names": (items(id=[None]), r"items of correct: id: expected text in every row; run the attacks again"),
    "items: no group": (items(group=[None]), r"items of correct: group: expected text in every row; run the attacks"),
    "lens: of others": (lens(format="x"), r"not written by TunedLens\.save; fit the lens again"),
    "lens: no tensors": (lens({}), r"expected a square matrix and a bias at each site; fit the lens again"),
    "lens: no bias": (lens({"0.resid_post.weight": torch.eye(3)}), r"expected a square matrix and a bias at each site"),
    "lens: not square": (lens(SQUARE | {"0.resid_post.weight": torch.ones(3, 2)}), r"expected a square matrix and a b"),
    "lens: a number": (lens(SQUARE | {"0.resid_post.bias": torch.ones(())}), r"expected a square matrix and a bias at"),
    "lens: no site": (lens({"last.weight": torch.eye(3)}), r"record cannot be read \(cannot read 'last' as a site"),
    "lens: no layers": (lens(table="{}"), r"its record cannot be read \(.*\); fit the lens again"),
    "lens: deep": (lens(metadata="[" * 10**5), r"record cannot be read \(maximum recursion depth"),
    "twin: none": (world_of, r"build\.json: no such file; expected an artifact written by an earlier step"),
    "twin: no config": (twin({}), r"build\.json: config: expected dict, got nothing; write the artifact again"),
    "twin: no seed": (twin({"config": {}}), r"world_seed: expected a whole number, got None; build again"),
}


def refused(error: type[InterpError], message: str, act: Act) -> None:
    with pytest.raises(error, match=message) as raised:
        act()
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("case", list(SETTINGS))
def test_bad_settings_are_refused(case: str) -> None:
    act, message = SETTINGS[case]
    refused(ConfigError, message, act)


@pytest.mark.parametrize("case", list(TEXTS))
def test_what_are_no_texts_is_refused(case: str) -> None:
    act, message = TEXTS[case]
    refused(DataError, message, act)


@pytest.mark.parametrize("case", list(RECORDS))
def test_bad_records_are_refused(case: str, tmp_path: Path) -> None:
    act, message = RECORDS[case]
    refused(ArtifactError, message, lambda: act(tmp_path))


def test_what_was_made_is_read(tmp_path: Path) -> None:
    assert list(items()(tmp_path).items) == ["own"]  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(lens()(tmp_path), TunedLens)
    assert twin({"config": {"world_seed": 0}})(tmp_path).seed == 0  # pyright: ignore[reportAttributeAccessIssue]
