"""The suite: one model in memory at a time, errors that count for nobody, and interruptions that cost little."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from planted_unlearning import DATA, GROUPS, PROMPTS, copied, make_original, misdirected, n_hooks, what_it_knows

from interp_unlearn.artifacts import read_json
from interp_unlearn.attacks import (
    AblateDirection,
    Attack,
    Attempt,
    MeasuredItems,
    Prune,
    Quantise,
    Record,
    Reformat,
    Relearn,
    Setup,
    SteerBack,
    Target,
    default_attacks,
    run_attacks,
)
from interp_unlearn.errors import ArtifactError, ConfigError, DiskError, ScoreError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.unlearning import UnlearnData

CALLS: list[str] = []


@pytest.fixture(scope="module")
def original():
    return make_original()


@pytest.fixture(scope="module")
def hidden(original: HookedModel):
    return misdirected(original)


@pytest.fixture(autouse=True)
def no_calls():
    CALLS.clear()


@dataclass(frozen=True)
class Planted(Attack):
    """An attack that says when it is at work."""

    title: str = "planted"
    trouble: str = ""

    @property
    def name(self):
        return self.title

    def record(self, model: HookedModel, setup: Setup):
        CALLS.append(f"{self.title} records {model.name}")
        return Record({"before": setup.measure(model)}, {"three": torch.tensor(3)})

    def attempts(self, target: Target, record: Record):
        CALLS.append(f"{self.title} attacks {target.model.name}")
        assert record.tensors["three"] == 3 and record.items["before"].scores.mean() == 1
        yield Attempt({"number": 1}, target.measured())
        if self.trouble == "interrupted" and not FIXED:
            raise KeyboardInterrupt
        if self.trouble == "full disk":
            raise DiskError("no space left")
        if self.trouble == "refused":
            raise ConfigError("this model has no such thing")
        if self.trouble == "left changed":
            with torch.no_grad():
                target.model.hf.lm_head.weight.add_(1)
            target.model.mark_changed()
        yield Attempt({"number": 2}, None, reason="tried in vain")


FIXED: list[bool] = []


@dataclass(frozen=True, eq=False)
class Counted:
    """A measure that is a plain callable."""

    inner: Callable[[HookedModel], MeasuredItems]

    def __call__(self, model: HookedModel):
        CALLS.append(f"measured {model.name}")
        return self.inner(model)


def test_one_model_is_in_memory_at_a_time(original: HookedModel, hidden: HookedModel, tmp_path: Path):
    alive: list[weakref.ref[Any]] = []

    def load(name: str, model: HookedModel):
        def loading():
            assert not [there for there in alive if there() is not None], "the other model is still in memory"
            fresh = copied(model)
            fresh.name = name
            alive.append(weakref.ref(fresh.hf))
            CALLS.append(f"loaded {name}")
            return fresh

        return loading

    attacks = [AblateDirection(n_random=1), Reformat(), Prune((0.1,)), Planted()]
    run_attacks(
        load("unlearned", hidden),
        load("original", original),
        what_it_knows(original),
        DATA,
        attacks,
        out=tmp_path / "run",
        progress=False,
    )
    assert CALLS == ["loaded original", "planted records original", "loaded unlearned", "planted attacks unlearned"]
    assert len(alive) == 2


def test_checkpoints_are_loaded_from_where_they_are(original: HookedModel, hidden: HookedModel, tmp_path: Path):
    for name, model in (("original", original), ("unlearned", hidden)):
        model.save_pretrained(tmp_path / name)
    attacks = [AblateDirection(("own",), n_random=0)]
    measure = what_it_knows(original)
    by_path = run_attacks(tmp_path / "unlearned", str(tmp_path / "original"), measure, DATA, attacks, progress=False)
    in_memory = run_attacks(hidden, original, measure, DATA, attacks, progress=False)
    pd.testing.assert_frame_equal(by_path.to_frame(), in_memory.to_frame())
    assert by_path.hashes == in_memory.hashes == {"original": original.hash(), "unlearned": hidden.hash()}


def test_an_interrupted_suite_goes_on(original: HookedModel, hidden: HookedModel, tmp_path: Path):
    attacks = [Planted("first"), Planted("second", "interrupted"), Planted("third")]
    measure = Counted(what_it_knows(original))
    FIXED.clear()

    def run():
        CALLS.clear()
        return run_attacks(hidden, original, measure, DATA, attacks, out=tmp_path / "run", progress=False)

    with pytest.raises(KeyboardInterrupt):
        run()
    assert "first attacks unlearned" in CALLS
    FIXED.append(True)
    resumed = run()
    attacked = [call for call in CALLS if "records" not in call]
    assert attacked == [
        "second attacks unlearned",
        "measured unlearned",
        "third attacks unlearned",
        "measured unlearned",
    ]
    assert not [call for call in CALLS if "records" in call], "the original's record was kept"
    assert run().to_frame().equals(resumed.to_frame()) and CALLS == []
    whole = run_attacks(hidden, original, measure, DATA, attacks, progress=False)
    pd.testing.assert_frame_equal(resumed.to_frame(), whole.to_frame())
    pd.testing.assert_frame_equal(resumed.items, whole.items, check_dtype=False)


def test_other_attacks_join_and_other_runs_are_refused(original: HookedModel, hidden: HookedModel, tmp_path: Path):
    out, measure = tmp_path / "run", what_it_knows(original)
    first = run_attacks(hidden, original, measure, DATA, [Prune((0.1,))], out=out, progress=False)
    both = run_attacks(hidden, original, measure, DATA, [Quantise((8,), (None,))], out=out, progress=False)
    assert both.to_frame()["attack"].tolist() == ["quantise", "prune"]
    assert both.to_frame()["score"].iloc[1] == first.to_frame()["score"].iloc[0]
    others = {
        "model_hash": (copied(original), original, measure, DATA, 0),
        "measure": (hidden, original, what_it_knows(original, "answer_probability"), DATA, 0),
        "data": (hidden, original, measure, UnlearnData(forget=PROMPTS), 0),
        "seed": (hidden, original, measure, DATA, 1),
    }
    for name, (model, before, asked, texts, seed) in others.items():
        with pytest.raises(ArtifactError, match=name):
            run_attacks(model, before, asked, texts, [Prune((0.1,))], out=out, seed=seed, progress=False)


def test_what_is_written_can_be_read(original: HookedModel, hidden: HookedModel, tmp_path: Path):
    attacks = [AblateDirection(("own",), n_random=2), Planted("odd", "refused")]
    result = run_attacks(hidden, original, what_it_knows(original), DATA, attacks, out=tmp_path / "run", progress=False)
    result.save(tmp_path / "again")
    for folder in (tmp_path / "run", tmp_path / "again"):
        tables: Any = [pd.read_parquet(folder / f"{name}.parquet") for name in ("attempts", "items")]
        attempts, items = tables
        assert attempts["attack"].tolist() == ["ablate_direction", "odd"]
        assert attempts["recovered"].iloc[0] == 1.0 and attempts["reason"].iloc[1] == "this model has no such thing"
        assert len(items) == 24 and items["control"].notna().all() and items["score"].mean() == 1.0
        assert pd.read_parquet(folder / "worst.parquet")["n_attempts"].tolist() == [1, 1]
        assert pd.read_parquet(folder / "models.parquet")["n"].tolist() == [24, 24]
        assert read_json(folder / "attacks.json")["hashes"] == result.hashes
    (kept,) = (tmp_path / "run" / "attacks").iterdir()
    assert read_json(kept / "attack.json")["settings"]["n_random"] == 2


def test_an_attack_that_does_not_fit_says_why_and_the_others_go_on(original: HookedModel, hidden: HookedModel):
    alone = UnlearnData(forget=DATA.forget, groups=GROUPS)
    attacks = [Relearn("neutral"), Reformat(), AblateDirection(("own",), n_random=0), Planted("odd", "refused")]
    result = run_attacks(hidden, original, what_it_knows(original), alone, attacks, progress=False)
    table = result.to_frame().set_index("attack")
    assert table["recovered"].notna().tolist() == [False, False, True, False]
    assert "neutral" in table["reason"]["relearn_neutral"] and "nothing to ask" in table["reason"]["reformat"]
    assert result.worst()["attack"].iloc[0] == "ablate_direction"
    with pytest.raises(ConfigError, match="no neutral texts"):
        run_attacks(hidden, original, what_it_knows(original), alone, [Relearn("neutral")], progress=False)


def test_an_attack_that_leaves_the_weights_changed_ends_the_suite(
    original: HookedModel, hidden: HookedModel, tmp_path: Path
):
    attacks = [Planted("rude", "left changed"), Prune((0.1,))]
    measure = what_it_knows(original)
    for _ in range(2):  # what it measured is not served from the folder either
        with pytest.raises(ConfigError, match="rude left the model's weights changed"):
            run_attacks(copied(hidden), original, measure, DATA, attacks, out=tmp_path, progress=False)


def test_without_a_gap_no_attack_recovers_anything(original: HookedModel):
    attacks = [Prune((0.0, 0.5)), SteerBack(("forget_minus_neutral",), (0.0,), layers=(1,), n_random=0)]
    result = run_attacks(copied(original), original, what_it_knows(original), DATA, attacks, progress=False)
    table: Any = result.to_frame()
    assert table["recovered"].isna().all() and table["recovered_low"].isna().all()
    assert table["reason"].str.startswith("no gap to recover: original - unlearned = 0 [0, 0]").all()
    assert table["score"].notna().all()


def test_items_that_cannot_be_scored_are_named(original: HookedModel, hidden: HookedModel):
    def measure(model: HookedModel):
        found = what_it_knows(original)(model)
        scores = found.scores.copy()
        scores[3] = float("nan")
        return MeasuredItems.of("mine", scores, found.ids)

    result = run_attacks(hidden, original, measure, DATA, [Prune((0.1,))], progress=False)
    row: Any = result.to_frame().iloc[0]
    assert (row["n"], row["n_groups"], row["n_left_out"]) == (23, 23, 1)
    assert result.items.loc[result.items["id"] == "3", "reason"].tolist() == ["score is nan"]
    assert result.notes() == [
        "No groups were given: every item is its own group, as if all were independent.",
        "1 items could not be scored and are left out: 3",
    ]

    with pytest.raises(ScoreError, match="no item can be scored on original; first 0: score is nan"):
        run_attacks(hidden, original, lambda model: MeasuredItems.of("x", [float("nan")]), DATA, progress=False)


def test_the_whole_suite_leaves_both_models_as_they_were(original: HookedModel, hidden: HookedModel):
    before = [(model.hash(), n_hooks(model), model.hf.training) for model in (original, hidden)]
    flags = [parameter.requires_grad for parameter in hidden.hf.parameters()]
    quick: dict[str, tuple[Any, ...] | int] = {
        "n_random": 1,
        "checkpoints": (1,),
        "learning_rates": (1e-3,),
        "coefficients": (1.0,),
        "factors": (0.0,),
        "unrelated": ("it rained",),
    }
    attacks = [
        replace(attack, **{name: quick[name] for name in quick.keys() & {entry.name for entry in fields(attack)}})
        for attack in default_attacks()
    ]
    result = run_attacks(hidden, original, what_it_knows(original), DATA, attacks, progress=False)
    assert set(result.to_frame()["attack"]) == {attack.name for attack in default_attacks()}
    assert len(result.worst()) == len(attacks) and result.worst()["recovered"].iloc[0] == 1.0
    for model in (original, hidden):
        model.mark_changed()
    assert [(model.hash(), n_hooks(model), model.hf.training) for model in (original, hidden)] == before
    assert [parameter.requires_grad for parameter in hidden.hf.parameters()] == flags


def test_a_full_disk_is_no_refusal(original: HookedModel, hidden: HookedModel):
    attacks = [Planted("first"), Planted("second", "full disk")]
    with pytest.raises(DiskError, match="no space left"):
        run_attacks(hidden, original, what_it_knows(original), DATA, attacks, progress=False)


def test_no_attack_and_the_same_twice_are_refused(original: HookedModel, hidden: HookedModel):
    for attacks in ([], [Prune(), Prune()]):
        with pytest.raises(ConfigError, match="at least one, and none twice"):
            run_attacks(hidden, original, what_it_knows(original), DATA, attacks, progress=False)
