"""The command line: the whole path on a tiny checkpoint, and one line for whatever is wrong with the input."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from conftest import WORDS, make_hf, make_tokenizer

from interp_unlearn.activations import ActivationStore
from interp_unlearn.artifacts import read_json
from interp_unlearn.cli import main
from interp_unlearn.cli.inputs import parse_layers, read_labelled_texts
from interp_unlearn.cli.options import Layout
from interp_unlearn.data import Pair, Prompt, write_pairs, write_prompts, write_texts
from interp_unlearn.errors import ConfigError, DataError, InterpError
from interp_unlearn.models import load_model, weights_hash
from interp_unlearn.probes import ProbeSet

SECRET = "blue small hill"
"""Words of the target texts alone: no verb may print them."""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama checkpoint and pairs whose target sentences end in words that the neutral ones never use."""
    folder = tmp_path_factory.mktemp("workplace")
    make_hf("llama").save_pretrained(folder / "model")
    make_tokenizer().save_pretrained(folder / "model")
    beginnings = [f"the {noun} {verb} on {det}" for noun in WORDS[1:3] for verb in WORDS[3:5] for det in WORDS[6:10]]
    write_pairs(folder / "pairs.tsv", [Pair(f"{start} {SECRET}", (f"{start} mat red big",)) for start in beginnings])
    return folder


@pytest.fixture(scope="module")
def results(workplace: Path) -> Path:
    """The path of a third-party model: collect, probe, unlearn, evaluate, drift."""
    model, data, limit = workplace / "model", workplace / "pairs.tsv", ("--limit", 12)
    run("collect", model, "--data", data, "--out", workplace / "store", *limit)
    run("probe", workplace / "store", "--out", workplace / "probes", "--folds", 3)
    settings = ("--objective", "probe_multi", "--probes", workplace / "probes", "--steps", 3, "--batch-size", 4)
    run("unlearn", model, "--data", data, "--out", workplace / "changed", *settings, *limit)
    against = (workplace / "changed", "--against", model, "--data", data, "--skip", 12)
    run("evaluate", *against, "--probes", workplace / "probes", "--out", workplace / "evaluation")
    run("drift", *against, "--out", workplace / "drift")
    return workplace


def run(*arguments: object) -> None:
    """A verb that must succeed."""
    assert main([str(argument) for argument in arguments]) == 0, arguments


def refused(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of a verb that must fail with exit code 2; Python-level and child output alike are seen."""
    capfd.readouterr()
    code = main([str(argument) for argument in arguments])
    captured = capfd.readouterr()
    lines = captured.err.splitlines()
    assert code == 2, captured
    assert captured.out == ""
    assert len(lines) == 1 and lines[0].startswith("error: "), captured.err
    return lines[0]


def test_collect_labels_and_groups_pairs(results: Path):
    store = ActivationStore.open(results / "store")
    assert [str(site) for site in store.sites] == ["embed", "0.resid_post", "1.resid_post", "2.resid_post"]
    assert len(store) == 24
    assert store.labels is not None and store.texts is not None
    assert [SECRET in text for text in store.texts] == [label == 1 for label in store.labels]
    assert store.groups == [f"pair {index}" for index in range(12) for _ in range(2)]


def test_probe_finds_the_planted_words_and_draws_them(results: Path):
    probes = ProbeSet.load(results / "probes")
    assert (probes.table["auroc"] > 0.95).all()
    assert (results / "probes" / "probe_auroc.pdf").is_file()


def test_unlearned_model_loads_and_differs_only_where_it_was_trained(results: Path):
    original, _ = load_model(results / "model")
    changed, tokenizer = load_model(results / "changed")
    moved = {
        name
        for (name, before), after in zip(original.named_parameters(), changed.parameters(), strict=True)
        if not before.equal(after)
    }
    assert moved == {f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(3)}
    assert tokenizer.get_vocab() == make_tokenizer().get_vocab()
    record = read_json(results / "changed" / "run.json")["identity"]
    assert record["model_hash"] == weights_hash(original)
    assert record["config"]["steps"] == 3 and record["layers"] == [0, 1, 2]
    assert len(pd.read_parquet(results / "changed" / "history.parquet")) == 3


def test_evaluation_compares_both_models(results: Path):
    table = pd.read_parquet(results / "evaluation" / "predictions.parquet").set_index(["corpus", "measure", "model"])
    assert len(table) == 6
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()
    assert (table.xs("kl", level="measure")["value"] > 0).all()
    assert (table["n_texts"] == 4).all()
    scores = pd.read_parquet(results / "evaluation" / "probe_scores.parquet")
    assert set(scores["model"]) == {"original", "model"}
    original = scores[(scores["model"] == "original") & (scores["site"] == "1.resid_post")].iloc[0]
    assert original["auroc"] == 1.0
    assert original["mean_score_target"] > 0 > original["mean_score_neutral"]


def test_evaluating_a_model_against_itself_finds_no_difference(results: Path, tmp_path: Path):
    model = results / "model"
    run("evaluate", model, "--against", model, "--data", results / "pairs.tsv", "--out", tmp_path / "same")
    table = pd.read_parquet(tmp_path / "same" / "predictions.parquet")
    assert (table.loc[table["measure"] == "kl", "value"].abs() < 1e-9).all()
    perplexity = table[table["measure"] == "perplexity"].pivot(index="corpus", columns="model", values="value")
    assert (perplexity["model"] == perplexity["original"]).all()
    assert not (tmp_path / "same" / "probe_scores.parquet").exists()


def test_drift_starts_at_zero_and_is_drawn(results: Path):
    table = pd.read_parquet(results / "drift" / "drift.parquet")
    assert (table.loc[table["site"] == "embed", "relative_displacement"] == 0).all()
    assert (table.loc[table["site"] == "2.resid_post", "relative_displacement"] > 0).all()
    assert set(table["objective"]) == {"probe_multi"} and set(table["corpus"]) == {"forget", "retain"}
    pdf, png = (results / "drift" / f"drift.{suffix}" for suffix in ("pdf", "png"))
    drawn = pdf.read_bytes()
    pdf.unlink()
    png.unlink()
    run("figures", results / "drift")
    assert pdf.read_bytes() == drawn and png.is_file()


def test_no_verb_prints_a_text(results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    model, data = results / "model", results / "pairs.tsv"
    run("--verbose", "collect", model, "--data", data, "--out", tmp_path / "store")
    run("probe", tmp_path / "store", "--out", tmp_path / "probes")
    run("evaluate", results / "changed", "--against", model, "--data", data, "--out", tmp_path / "evaluation")
    captured = capfd.readouterr()
    assert "perplexity" in captured.out
    assert SECRET not in captured.out + captured.err


def test_the_same_run_may_be_repeated_and_another_may_not_take_its_folder(
    results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    out = tmp_path / "probes"
    run("probe", results / "store", "--out", out)
    run("probe", results / "store", "--out", out)
    assert "folds: 5 there, 4 here" in refused(capfd, "probe", results / "store", "--out", out, "--folds", 4)
    model, data = results / "model", results / "pairs.tsv"
    run("collect", model, "--data", data, "--out", tmp_path / "ends", "--limit", 12, "--tokens=-2:")
    assert 'tokens: "all" there, "Span(start=-2' in refused(capfd, "probe", tmp_path / "ends", "--out", out)
    assert "choose another" in refused(capfd, "collect", model, "--data", data, "--out", out)
    taken = refused(capfd, "collect", model, "--data", data, "--out", results / "store", "--limit", 3)
    assert "holds another activation store" in taken


def test_a_run_that_fails_leaves_no_folder(results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    arguments = ("unlearn", results / "model", "--data", results / "pairs.tsv", "--out", tmp_path / "changed")
    refused(capfd, *arguments, "--objective", "cosine_rmu", "--layers", "1", "--learning-rate", "inf")
    assert list(tmp_path.iterdir()) == []


def broken(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_text(content)
    return path


WRONG: dict[str, tuple[Callable[[Path, Path], tuple[object, ...]], str]] = {
    "missing model": (lambda w, t: ("collect", t / "none", "--data", w / "pairs.tsv"), "no such directory"),
    "no checkpoint": (lambda w, t: ("collect", w, "--data", w / "pairs.tsv"), "no config.json"),
    "broken config": (
        lambda w, t: ("collect", broken(t, "config.json", "{").parent, "--data", w / "pairs.tsv"),
        "cannot be loaded",
    ),
    "missing data": (lambda w, t: ("collect", w / "model", "--data", t / "none.tsv"), "none.tsv: no such file"),
    "empty data": (lambda w, t: ("collect", w / "model", "--data", broken(t, "e.tsv", "")), "e.tsv: the file is empty"),
    "malformed pairs": (
        lambda w, t: ("collect", w / "model", "--data", broken(t, "m.tsv", "toxic\tneutral1\na\tb\nonly one\n")),
        "m.tsv:3: expected 2 tab-separated fields, got 1",
    ),
    "malformed prompts": (
        lambda w, t: ("collect", w / "model", "--layout", "prompts", "--data", broken(t, "m.jsonl", "\n{]\n")),
        "m.jsonl:2: not valid JSON",
    ),
    "nothing left": (
        lambda w, t: ("collect", w / "model", "--data", w / "pairs.tsv", "--skip", 99),
        "holds 16 rows, so none is left after --skip 99",
    ),
    "unknown component": (
        lambda w, t: ("collect", w / "model", "--data", w / "pairs.tsv", "--site", "0.resid_port"),
        "unknown component 'resid_port'",
    ),
    "no site": (
        lambda w, t: ("collect", w / "model", "--data", w / "pairs.tsv", "--site", "last"),
        "cannot read 'last'",
    ),
    "layer out of range": (
        lambda w, t: ("collect", w / "model", "--data", w / "pairs.tsv", "--site", "3.resid_post"),
        "3.resid_post: layer out of range; the model has layers 0 to 2",
    ),
    "objective's layer out of range": (
        lambda w, t: (*unlearn_in(w), "--objective", "cosine_rmu", "--layers", "1,7"),
        "layers [7] out of range; the model has layers 0 to 2",
    ),
    "layer without probe": (
        lambda w, t: (*unlearn_in(w), "--objective", "probe_multi", "--probes", w / "probes", "--layers", "1,7"),
        "no probe at 7.resid_post",
    ),
    "unknown objective": (lambda w, t: (*unlearn_in(w), "--objective", "magic"), "unknown objective 'magic'"),
    "objective without probes": (lambda w, t: (*unlearn_in(w), "--objective", "probe_multi"), "needs --probes"),
    "objective without layers": (lambda w, t: (*unlearn_in(w), "--objective", "cosine_rmu"), "needs --layers"),
    "no objective": (lambda w, t: unlearn_in(w), "give --objective"),
    "no probes there": (
        lambda w, t: (*unlearn_in(w), "--objective", "probe_multi", "--probes", t),
        "probes.json: no such file",
    ),
    "probes of another model": (
        lambda w, t: (
            *("unlearn", w / "changed", "--data", w / "pairs.tsv"),
            *("--objective", "probe_multi", "--probes", w / "probes"),
        ),
        "belongs to",
    ),
    "no device": (
        lambda w, t: ("collect", w / "model", "--data", w / "pairs.tsv", "--device", "abacus"),
        "--device abacus",
    ),
    "no store": (lambda w, t: ("probe", t), "no activation store"),
    "labels of one class": (lambda w, t: ("probe", one_class(w, t)), "all 3 rows are of class 1"),
    "texts of one class": (
        lambda w, t: ("unlearn", w / "model", *one_class_options(t), "--objective", "random_single", "--layers", "1"),
        "all 3 rows are target; give rows of both classes (see --neutral)",
    ),
    "evaluation of one class": (
        lambda w, t: ("evaluate", w / "model", "--against", w / "model", *one_class_options(t)),
        "all 3 rows are target; give rows of both classes (see --neutral)",
    ),
    "neutral twice": (
        lambda w, t: ("collect", w / "model", "--data", w / "pairs.tsv", "--neutral", one_class_texts(t)),
        "--neutral goes with --layout texts",
    ),
    "nothing to draw": (lambda w, t: ("figures", t), "no table to draw"),
    "missing option": (lambda w, t: ("collect", w / "model"), "Missing option '--data'"),
    "no number": (
        lambda w, t: ("collect", w / "model", "--data", w / "pairs.tsv", "--limit", "many"),
        "Invalid value for '--limit': ",
    ),
    "unknown verb": (lambda w, t: ("forget",), "No such command 'forget'"),
    "unknown layout": (
        lambda w, t: ("collect", w / "model", "--data", w / "pairs.tsv", "--layout", "rows"),
        "'rows' is not one of",
    ),
}


def unlearn_in(workplace: Path) -> tuple[object, ...]:
    return ("unlearn", workplace / "model", "--data", workplace / "pairs.tsv")


def one_class_texts(folder: Path) -> Path:
    write_texts(folder / "texts.txt", ["the cat", "a dog", "big red hill"])
    return folder / "texts.txt"


def one_class_options(folder: Path) -> tuple[object, ...]:
    return ("--layout", "texts", "--data", one_class_texts(folder))


def one_class(workplace: Path, folder: Path) -> Path:
    run("collect", workplace / "model", *one_class_options(folder), "--out", folder / "s")
    return folder / "s"


@pytest.mark.parametrize("case", list(WRONG))
def test_wrong_input_gets_one_line_and_exit_code_2(
    case: str, results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    arguments, expected = WRONG[case]
    command = arguments(results, tmp_path)
    with_out = command if command[0] in ("figures", "forget") else (*command, "--out", tmp_path / "out")
    assert expected in refused(capfd, *with_out)
    assert not (tmp_path / "out").exists()


def test_a_fresh_process_prints_no_traceback(tmp_path: Path):
    command = [sys.executable, "-m", "interp_unlearn.cli", "collect", str(tmp_path), "--data", str(tmp_path / "x.tsv")]
    result = subprocess.run([*command, "--out", str(tmp_path / "out")], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == f"error: {tmp_path / 'x.tsv'}: no such file; expected the path of a data file\n"


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from interp_unlearn.cli import main; code = main(['unlearn', '--help']);"
        "sys.exit(code or len({'torch', 'transformers', 'pandas', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    )
    environment = {**os.environ, "COLUMNS": "200"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert "--objective" in result.stdout


def test_no_arguments_show_the_verbs(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in ("collect", "probe", "unlearn", "evaluate", "drift", "figures", "reproduce"))


def test_layouts_give_both_classes(tmp_path: Path):
    write_prompts(tmp_path / "p.jsonl", [Prompt("a", 0.9), Prompt("b", None), Prompt("c", 0.2), Prompt("d", 0.5)])
    prompts = read_labelled_texts(tmp_path / "p.jsonl", Layout.prompts)
    assert (prompts.texts, prompts.labels) == (("a", "c", "d"), (1, 0, 1))
    write_texts(tmp_path / "t.txt", ["a", "b", "c"])
    write_texts(tmp_path / "n.txt", ["x", "y", "z"])
    texts = read_labelled_texts(tmp_path / "t.txt", Layout.texts, tmp_path / "n.txt", limit=1, skip=1)
    assert (texts.of_class(1), texts.of_class(0)) == (["b"], ["y"])
    assert len(set(texts.groups)) == 2
    write_prompts(tmp_path / "unscored.jsonl", [Prompt("a")])
    with pytest.raises(DataError, match="no prompt has a toxicity score"):
        read_labelled_texts(tmp_path / "unscored.jsonl", Layout.prompts)


def test_layers_are_read_as_lists_and_ranges():
    assert parse_layers("3") == [3]
    assert parse_layers("1, 4-6") == [1, 4, 5, 6]
    for wrong in ("", "a", "2-", "-1", "1;2"):
        with pytest.raises(ConfigError, match="cannot read"):
            parse_layers(wrong)


@pytest.mark.parametrize(
    "settings",
    [
        ("--objective", "random_single", "--layers", "1"),
        ("--objective", "probe_single", "--estimator", "mean_difference"),
        ("--objective", "rmu", "--layers", "1", "--coefficient", "2"),
        ("--objective", "cosine_rmu", "--layers", "1-2", "--train-layers", "0-2", "--kl-weight", "0"),
        ("--objective", "distilled", "--overshoot", "2", "--learning-rate", "1e-2"),
        ("--objective", "civil_finetuning", "--roles", "all"),
        ("--recipe", "rmu_zephyr_7b", "--layers", "1", "--train-layers", "0-1", "--learning-rate", "1e-3"),
    ],
    ids=lambda settings: settings[1],
)
def test_every_objective_runs_from_the_command_line(settings: tuple[str, ...], results: Path, tmp_path: Path):
    probes = ("--probes", results / "probes") if settings[1] in ("probe_single", "distilled") else ()
    arguments = ("--steps", 2, "--batch-size", 2, "--out", tmp_path / "changed")
    run(*unlearn_in(results), *settings, *probes, *arguments)
    record = json.loads((tmp_path / "changed" / "unlearn.json").read_text())
    assert record["config"]["steps"] == 2
    assert weights_hash(load_model(tmp_path / "changed")[0]) != weights_hash(load_model(results / "model")[0])


def test_oracle_needs_a_teacher(results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    arguments = (*unlearn_in(results), "--objective", "oracle", "--steps", 2, "--out", tmp_path / "changed")
    assert "needs --teacher" in refused(capfd, *arguments)
    run(*arguments, "--teacher", results / "changed", "--batch-size", 2)


def test_study_verbs_pass_their_options_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    module = pytest.importorskip("interp_unlearn.study.reproduce")
    calls: list[tuple[object, ...]] = []

    def study(out: Path, quick: bool, workers: int) -> None:
        calls.append((out, quick, workers))
        (out / "dissociation.md").write_text("| a table |")

    monkeypatch.setattr(module, "reproduce", study)
    run("reproduce", "--quick", "--out", tmp_path, "--workers", 3)
    assert calls == [(tmp_path, True, 3)]

    def failing(*_: object) -> None:
        raise InterpError("a twin is missing\nfrom the folder")

    monkeypatch.setattr(module, "reproduce", failing)
    assert refused(capfd, "reproduce", "--out", tmp_path) == "error: a twin is missing from the folder"


@pytest.mark.parametrize(("value", "code"), [(0.95, 0), (0.85, 1)])
def test_organism_check_fails_with_a_gate(
    value: float, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    from interp_unlearn.organism import quality

    report = quality.QualityReport((quality.Gate("knows_all", "hazardous cloze", value, 0.9, 1.0, 100),))
    monkeypatch.setattr(quality, "check_organism", lambda folder: report)
    assert main(["organism", "check", str(tmp_path)]) == code
    assert "hazardous cloze" in capsys.readouterr().out


def test_organism_check_names_a_missing_twin(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    assert "is no twin" in refused(capfd, "organism", "check", tmp_path)
