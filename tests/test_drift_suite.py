"""The suite of drift: planted changes come out of it, what is missing is named, and it goes on where it was stopped."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_hf, make_tokenizer

from interp_unlearn.activations import collect
from interp_unlearn.drift import MEASURES, Answers, DriftTexts, TunedLensConfig, displacement, measure_drift, run_drift
from interp_unlearn.drift.summary import COLUMNS
from interp_unlearn.errors import ArtifactError, ConfigError, DataError, DiskError
from interp_unlearn.interventions import Checkpoint, HookedModel, Span
from interp_unlearn.models import parameters_by_role
from interp_unlearn.probes import ProbeSet, fit_probes
from interp_unlearn.sites import Site, residual_stream

FORGET = [f"the {a} {b} sat on blue hill" for a in ("big", "small", "red") for b in ("cat", "dog", "mat", "hill")]
RETAIN = [f"the {a} {b} ran and it was not" for a in ("big", "small", "red") for b in ("cat", "dog", "mat", "hill")]
TEXTS = {"forget": FORGET, "retain": RETAIN}
ANSWERS = Answers(["the cat sat on a", "who said it was", "a big dog ran and"], [" mat", " red", " it"])
QUICK: dict[str, Any] = {"n_null": 3, "lens": TunedLensConfig(steps=3), "progress": False}
LATE = ("1.resid_post", "2.resid_post")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny Llama, one whose second MLP has changed by a rank-one matrix, and one that shares nothing with it."""
    folder = tmp_path_factory.mktemp("models")
    original, twin = make_hf("llama"), make_hf("llama", seed=5)
    changed = copy.deepcopy(original)
    (weight,) = parameters_by_role(changed, ["mlp.down"], [1]).values()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        weight.add_(torch.outer(torch.randn(32, generator=generator), torch.randn(48, generator=generator)))
    for name, model in (("original", original), ("unlearned", changed), ("twin", twin)):
        model.save_pretrained(folder / name)
        make_tokenizer().save_pretrained(folder / name)
    return {name: folder / name for name in ("original", "unlearned", "twin")}


@pytest.fixture(scope="module")
def probes(checkpoints: dict[str, Path]) -> ProbeSet:
    labels = [1] * len(FORGET) + [0] * len(RETAIN)
    model = HookedModel.from_pretrained(checkpoints["original"])
    store = collect(model, [*FORGET, *RETAIN], residual_stream(3)[1:], labels=labels, progress=False)
    return fit_probes(store, folds=3, bootstrap=20, n_jobs=1, progress=False)


@pytest.fixture(scope="module")
def everything(checkpoints: dict[str, Path], probes: ProbeSet, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("out") / "drift"
    models = (checkpoints["unlearned"], checkpoints["original"])
    given: dict[str, Any] = {"answers": ANSWERS, "probes": probes, "twin": checkpoints["twin"]}
    return run_drift(*models, TEXTS, out=out, **given, **QUICK), out


def rows(result: Any, measure: str, quantity: str = "") -> Any:
    table = result.to_frame()
    return table.loc[(table["measure"] == measure) & table["quantity"].str.startswith(quantity, na=False)]


def test_every_measure_is_there_and_says_what_it_cannot_show(everything: Any) -> None:
    result, _ = everything
    table = result.to_frame()
    assert tuple(table.columns) == COLUMNS
    assert list(dict.fromkeys(table["measure"])) == list(MEASURES) == list(dict.fromkeys(MEASURES))
    assert table["evidence"].iloc[0] == "causal", "what is causal comes first"
    assert result.missing() == {} and table["value"].notna().all()
    assert (table["cannot_show"].str.len() > 40).all()
    small = set(table.loc[table["small_models"].notna(), "measure"])
    assert small == {"weight_delta", "massive_activations", "retrained_probes", "cka", "angles"}
    assert (table["n"] > 0).all() and table["counted"].notna().all()


def test_the_planted_change_is_the_one_that_is_found(everything: Any) -> None:
    result, _ = everything
    assert rows(result, "weight_delta", "changed")["value"].tolist() == [1.0]
    (tensor,) = result.tables["weight_delta"]["weight_delta"]["tensor"]
    assert tensor == "model.layers.1.mlp.down_proj.weight"
    assert rows(result, "weight_delta", "effective rank")["value"].iloc[0] == pytest.approx(1, abs=1e-4)
    assert len(rows(result, "weight_delta", "energy")) == 1
    control = rows(result, "determinism").iloc[0]
    assert control["value"] == 0 and control["place"] == tensor
    moved = rows(result, "displacement").groupby("place")["value"].max()
    assert (moved[["embed", "0.resid_post"]] == 0).all() and (moved[list(LATE)] > 0.1).all()
    share = rows(result, "spectrum", "share").set_index(["place", "corpus"])["value"]
    assert share["1.resid_post", "forget"] == pytest.approx(1, abs=1e-5)
    assert share["2.resid_post", "forget"] < 0.999
    assert "0.resid_post" not in {place for place, _ in share.index}, "where nothing moved there is no share"
    angle = rows(result, "angles", "smallest angle, displacement and weight delta").set_index("place")["value"]
    assert angle["1.resid_post"] == pytest.approx(0, abs=0.1), "it moved the way that the matrix writes"


def test_the_same_as_both_models_in_memory(everything: Any, checkpoints: dict[str, Path]) -> None:
    result, _ = everything
    models = [HookedModel.from_pretrained(checkpoints[name]) for name in ("unlearned", "original")]
    expected = measure_drift(models[0], models[1], TEXTS, residual_stream(3))
    found: pd.DataFrame = result.tables["displacement"]["displacement"]
    pd.testing.assert_frame_equal(found, expected, rtol=1e-4, atol=1e-6)


def test_lenses_read_the_models_and_the_floor(everything: Any) -> None:
    result, _ = everything
    for name in ("logit_lens", "tuned_lens"):
        lens = result.tables[name]["lens"].set_index(["model", "site"])["log_probability"]
        assert set(lens.index.get_level_values(0)) == {"original", "unlearned", "twin"}
        assert lens["original", "0.resid_post"] == lens["unlearned", "0.resid_post"], "nothing has changed up to there"
        assert lens["original", "2.resid_post"] != lens["unlearned", "2.resid_post"]
        row = rows(result, name, "log-probability of the answer, unlearned").iloc[-1]
        assert row["low"] <= row["value"] <= row["high"] and row["null"].startswith("a model that never knew")


def test_the_page_says_of_each_measure_what_it_cannot_show() -> None:
    page = " ".join((Path(__file__).parents[1] / "docs" / "methods.md").read_text(encoding="utf-8").split())
    for name, measure in MEASURES.items():
        assert f"**{name}** ({measure.evidence})" in page and measure.cannot_show in page, name


def test_nothing_that_was_read_is_left_and_tables_are(everything: Any) -> None:
    result, out = everything
    assert not list(out.rglob("*index.json")) and not list(out.rglob("stream"))
    assert (out / "measures" / "tuned_lens" / "tuned_lens.safetensors").is_file()
    assert (out / "measures" / "spectrum" / "direction_forget.safetensors").is_file()
    pd.testing.assert_frame_equal(pd.read_parquet(out / "summary.parquet"), result.summary, check_dtype=False)
    record = json.loads((out / "run.json").read_text())["identity"]
    assert (record["model_hash"], record["original_hash"]) == (result.hashes["unlearned"], result.hashes["original"])
    assert set(json.loads((out / "drift.json").read_text())["cannot_show"]) == set(MEASURES)


def test_saved_by_hand_as_by_the_run(everything: Any, tmp_path: Path) -> None:
    result, out = everything
    result.save(tmp_path)
    written = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {Path("summary.parquet"), Path("drift.json"), Path("measures/cka/cka.parquet")} <= set(written)
    assert sum(path.parts[0] == "measures" for path in written) == sum(map(len, result.tables.values()))
    assert {path: (out / path).read_bytes() for path in written} == written


def test_angles_without_weights_need_probes(checkpoints: dict[str, Path], probes: ProbeSet) -> None:
    def loads_it() -> HookedModel:  # a function gives a model, and no weights to compare
        return HookedModel.from_pretrained(checkpoints["unlearned"])

    told: dict[str, Any] = {"measures": ["angles", "displacement"], **QUICK}
    found = run_drift(loads_it, checkpoints["original"], TEXTS, probes=probes, **told).tables["angles"]["angles"]
    assert set(zip(found["first"], found["second"], strict=True)) == {("probe", "displacement")}
    missing = run_drift(loads_it, checkpoints["original"], TEXTS, **told).missing()
    assert "give Checkpoint(path)" in missing["angles"]


def test_what_lacks_its_inputs_gets_a_reason_and_no_score(checkpoints: dict[str, Path]) -> None:
    models = (checkpoints["unlearned"], checkpoints["original"])
    names = ["unlearning_depth", "logit_lens", "retrained_probes", "displacement"]
    result = run_drift(*models, {"a": FORGET}, [Site(2, "resid_post")], names, **QUICK)
    assert set(result.missing()) == {"unlearning_depth", "logit_lens", "retrained_probes"}
    lacking: Any = result.to_frame().query("measure != 'displacement'")
    assert lacking["value"].isna().all() and lacking["cannot_show"].notna().all()
    assert "no model that never knew" in result.missing()["unlearning_depth"]
    assert set(result.tables) == {"displacement"}
    only = run_drift(*models, {"a": FORGET}, measures=["unlearning_depth"], **QUICK)
    assert only.to_frame()["value"].dropna().tolist() == [] and only.tables == {}


def test_a_measure_that_fails_gets_its_error_and_alone_raises_it(checkpoints: dict[str, Path]) -> None:
    def loads_it() -> HookedModel:
        return HookedModel.from_pretrained(checkpoints["unlearned"])

    result = run_drift(loads_it, checkpoints["original"], TEXTS, measures=["weight_delta", "displacement"], **QUICK)
    assert "give Checkpoint(path)" in result.missing()["weight_delta"]
    with pytest.raises(ConfigError, match="give Checkpoint"):
        run_drift(loads_it, checkpoints["original"], TEXTS, measures=["weight_delta"], **QUICK)
    given = Checkpoint(checkpoints["unlearned"])
    assert not run_drift(given, checkpoints["original"], TEXTS, measures=["weight_delta"], **QUICK).missing()


def test_models_in_memory_are_left_as_they_were(llama: HookedModel, checkpoints: dict[str, Path]) -> None:
    changed = HookedModel.from_pretrained(checkpoints["unlearned"])
    changed.hf.train()
    hashes = (changed.hash(), llama.hash())
    names = ["weight_delta", "logit_lens", "displacement"]
    result = run_drift(changed, llama, TEXTS, measures=names, answers=ANSWERS, **QUICK)
    assert (changed.hash(), llama.hash()) == hashes and changed.hf.training
    assert not any(
        module._forward_hooks  # pyright: ignore[reportPrivateUsage]
        for module in [*changed.hf.modules(), *llama.hf.modules()]
    )
    assert result.hashes == {"unlearned": hashes[0], "original": hashes[1]}


class TestGoingOn:
    @pytest.fixture
    def call(self, checkpoints: dict[str, Path], tmp_path: Path) -> Any:
        def run(*names: str, unlearned: str = "unlearned", **options: Any) -> Any:
            models = (checkpoints[unlearned], checkpoints["original"])
            return run_drift(*models, TEXTS, measures=list(names), out=tmp_path / "o", **QUICK | options)

        return run

    def test_what_is_done_is_not_done_again(self, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        first = call("cka")
        monkeypatch.setattr("interp_unlearn.drift.computations.representation_similarity", None)
        second = call("cka", "displacement")
        assert set(second.tables) == {"cka", "displacement"}
        pd.testing.assert_frame_equal(first.tables["cka"]["cka"], second.tables["cka"]["cka"])
        with pytest.raises(TypeError, match="not callable"):
            call("cka", n_null=4)

    def test_after_an_interruption_only_the_rest_is_read(self, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def stop(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr("interp_unlearn.drift.computations.representation_similarity", stop)
            with pytest.raises(KeyboardInterrupt):
                call("displacement", "cka")
        monkeypatch.setattr("interp_unlearn.drift.computations.displacement", None)
        monkeypatch.setattr(HookedModel, "run", None)  # the activations are on disk
        assert set(call("displacement", "cka").tables) == {"displacement", "cka"}

    def test_a_full_disk_is_no_reason_of_a_measure(self, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: Any, **__: Any) -> None:
            raise DiskError("no space left")

        monkeypatch.setattr("interp_unlearn.drift.computations.representation_similarity", full)
        with pytest.raises(DiskError, match="no space left"):
            call("displacement", "cka")

    def test_another_model_or_other_texts_are_refused(self, call: Any, checkpoints: Any, tmp_path: Path) -> None:
        call("displacement", keep_activations=True)
        assert list((tmp_path / "o").rglob("stream"))
        with pytest.raises(ArtifactError, match="model_hash"):
            call("displacement", unlearned="twin")
        with pytest.raises(ArtifactError, match="texts"):
            models = (checkpoints["unlearned"], checkpoints["original"])
            run_drift(*models, {"forget": RETAIN}, measures=["displacement"], out=tmp_path / "o", **QUICK)


class TestProbesTrainedAgain:
    def fitted(self, checkpoint: Path, pool: Any = "mean", **options: Any) -> ProbeSet:
        labels = [1] * len(FORGET) + [0] * len(RETAIN)
        model = HookedModel.from_pretrained(checkpoint)
        told = {key: options.pop(key) for key in ("tokens", "completions") if key in options}
        store = collect(model, [*FORGET, *RETAIN], residual_stream(3)[1:], pool, labels=labels, progress=False, **told)
        return fit_probes(store, n_jobs=1, progress=False, **{"folds": 3, "bootstrap": 20} | options)

    def run(self, checkpoints: dict[str, Path], probes: ProbeSet, **options: Any) -> Any:
        same = (checkpoints["original"], checkpoints["original"])
        found = run_drift(*same, TEXTS, measures=["retrained_probes"], probes=probes, **QUICK | options)
        return found.tables["retrained_probes"]["retrained_probes"]

    @pytest.mark.parametrize(
        "told",
        [
            {"tokens": Span(-3)},
            {"tokens": "last"},
            {"tokens": Span(-4, -1), "pool": "last"},
            {"C": (0.01, 1.0), "C_sites": [Site(1, "resid_post")]},
        ],
    )
    def test_on_the_same_model_they_are_the_same(self, checkpoints: dict[str, Path], told: Any) -> None:
        """Same tokens, same pooling, same choice of C: nothing has changed, and nothing seems to have."""
        probes = self.fitted(checkpoints["original"], **told)
        table = self.run(checkpoints, probes)
        wanted = table.loc[(table["model"] == "original")].set_index("site")["auroc"]
        again = table.loc[(table["model"] == "changed") & (table["probe"] == "retrained")].set_index("site")["auroc"]
        assert again.to_dict() == pytest.approx(wanted.to_dict(), abs=1e-6)

    def test_probes_of_completions_are_refused(self, checkpoints: dict[str, Path]) -> None:
        ends = [" blue"] * len(FORGET) + [" red"] * len(RETAIN)
        probes = self.fitted(checkpoints["original"], completions=ends)
        with pytest.raises(ConfigError, match="fitted on the completions of prompts"):
            self.run(checkpoints, probes)

    def test_other_settings_of_the_fit_are_another_measure(self, checkpoints: dict[str, Path], tmp_path: Path) -> None:
        tables = [
            self.run(checkpoints, self.fitted(checkpoints["original"], shuffles=shuffles), out=tmp_path / "o")
            for shuffles in (1, 0)
        ]
        assert tables[0]["auroc_shuffled"].notna().any() and tables[1]["auroc_shuffled"].isna().all()


def test_settings_and_texts_that_make_no_sense_are_refused(checkpoints: dict[str, Path]) -> None:
    models = (checkpoints["unlearned"], checkpoints["original"])
    for names in (["no_such"], ["cka", "cka"], []):
        with pytest.raises(ConfigError, match="expected at least one of unlearning_depth"):
            run_drift(*models, TEXTS, measures=names)
    with pytest.raises(ConfigError, match="each site once"):
        run_drift(*models, TEXTS, [Site.embed, Site.embed])
    with pytest.raises(DataError, match="corpus b has no texts"):
        run_drift(*models, {"a": ["x"], "b": []})
    with pytest.raises(ConfigError, match="one a text"):
        DriftTexts(["x"], ["a", "b"])
    with pytest.raises(DataError, match="one a prompt"):
        Answers(["x"], [])
    with pytest.raises(ConfigError, match=r"groups: expected one a prompt \(1\), got 2"):
        Answers(["x"], ["y"], ["a", "b"])
    with pytest.raises(DataError, match="no texts"):
        DriftTexts([], [])
    assert DriftTexts(["x", "y"], ["retain", "forget"]).names == ("forget", "retain")


def test_displacement_of_no_tokens_is_refused(llama: HookedModel) -> None:
    store = collect(llama, FORGET, [Site.embed], "none", progress=False)
    with pytest.raises(DataError, match="none count"):
        displacement(store, store, keep=np.zeros(sum(store.rows["n_tokens"].tolist()), dtype=bool))
