"""Bad input, commands: every verb says in one line on stderr what is wrong, exits with 2, and leaves nothing behind."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import WORDS, make_hf, make_tokenizer

from interp_unlearn.artifacts import write_json
from interp_unlearn.cli import app, main
from interp_unlearn.data import (
    FactQuestion,
    Pair,
    Prompt,
    Question,
    write_facts,
    write_pairs,
    write_prompts,
    write_questions,
    write_texts,
)

Command = Callable[[Path, Path], tuple[object, ...]]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint, data in every layout, a store and its probes."""
    folder = tmp_path_factory.mktemp("workplace")
    make_hf("llama").save_pretrained(folder / "model")
    make_tokenizer().save_pretrained(folder / "model")
    beginnings = [f"the {noun} {verb} on {det}" for noun in WORDS[1:3] for verb in WORDS[3:5] for det in WORDS[6:8]]
    write_pairs(folder / "pairs.tsv", [Pair(f"{text} blue hill", (f"{text} mat",)) for text in beginnings])
    write_texts(folder / "texts.txt", ["the cat", "a dog"])
    write_facts(folder / "facts.jsonl", [FactQuestion("who sat", "the cat"), FactQuestion("who ran", "a dog")])
    write_questions(folder / "q.json", [Question("who sat", ("cat", "dog"), 0, "bio")] * 2)
    write_questions(folder / "long.json", [Question("the " * 80, ("cat", "dog"), 0, "bio")])
    write_prompts(folder / "prompts.jsonl", [Prompt("the cat", 0.9), Prompt("a dog", 0.1)])
    write_prompts(folder / "unscored.jsonl", [Prompt("the cat", None)])
    np.save(folder / "v.npy", np.ones(32))
    (folder / "v.pt").write_bytes(b"")
    for name, table in TABLES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        pd.DataFrame(table).to_parquet(folder / name)
    (folder / "effects" / "directions.safetensors").touch()
    (folder / "paths" / "directions.safetensors").touch()
    write_json(folder / "twins" / "knows_all" / "build.json", {"config": {}})
    model, store = str(folder / "model"), str(folder / "store")
    assert main(["collect", model, "--data", str(folder / "pairs.tsv"), "--out", store]) == 0
    assert main(["probe", store, "--out", str(folder / "probes"), "--folds", "2", "--bootstrap", "0"]) == 0
    return folder


TABLES: dict[str, dict[str, list[object]]] = {
    "effects/causal_effects.parquet": {"a": [1]},
    "paths/causal_effects.parquet": {"measure": ["../../x"], "site": ["embed"]},
    "study/dissociation.parquet": {"a": [1]},
    "excess/excess.parquet": {"a": [1]},
    "varied/sensitivity.parquet": {"a": [1]},
    "tokens/token_scores.parquet": {"a": [1]},
}


def on(verb: str, *options: object, out: bool = True) -> Command:
    """A verb, where `@name` is a file of the workplace; into a folder of its own, unless it is told where."""

    def command(workplace: Path, folder: Path) -> tuple[object, ...]:
        told = [workplace / part[1:] if isinstance(part, str) and part.startswith("@") else part for part in options]
        return (verb, *told, *(("--out", folder / "out") if out and "--out" not in options else ()))

    return command


def on_model(verb: str, *options: object) -> Command:
    """A verb on the model and the pairs."""
    return on(verb, "@model", "--data", "@pairs.tsv", *options)


def attack(name: str, *options: object) -> Command:
    return on("attack", name, "@model", "--against", "@model", "--data", "@pairs.tsv", *options)


def rmu(*options: object) -> Command:
    return on_model("unlearn", "--objective", "cosine_rmu", *options)


drawing, checking = partial(on, "figures", out=False), partial(on, "organism", "check", out=False)
SCORED = ("@model", "--prompts", "@prompts.jsonl", "--scorer", "@model")
PROBED = ("@probes", "--model", "@model")
CASES: dict[str, tuple[Command, str]] = {
    "no such verb": (on("zork"), r"No such command 'zork'; see interp-unlearn --help"),
    "no such option": (on_model("collect", "--zork"), r"No such option: --zork; see interp-unlearn collect --help"),
    "collect: no data": (on("collect", "@model"), r"Missing option '--data'; see interp-unlearn collect --help"),
    "collect: no model": (
        on("collect", "", "--data", "@pairs.tsv"),
        r"no model given: the path is empty; expected a m",
    ),
    "collect: no folder": (
        on("collect", "@none", "--data", "@pairs.tsv"),
        r"none: no such directory; expected a model",
    ),
    "collect: pool": (on_model("collect", "--pool", "max"), r"pool: expected mean, last or none, got 'max'"),
    "collect: tokens": (on_model("collect", "--tokens", "some"), r"tokens: expected one of all, .* got 'some'"),
    "collect: span": (
        on_model("collect", "--tokens", "a:b"),
        r"cannot read 'a:b' as a span .* write for example 0:8 or",
    ),
    "collect: empty span": (on_model("collect", "--tokens", "3:3"), r"Span\(3, 3\) is empty; expected start < stop"),
    "collect: backend": (on_model("collect", "--backend", "jax"), r"unknown backend 'jax'; expected one of torch, tr"),
    "collect: device": (on_model("collect", "--device", "abacus"), r"--device abacus: Expected one of cpu, cuda"),
    "collect: dtype": (
        on_model("collect", "--dtype", "int8"),
        r"'int8' is not one of 'float32', 'bfloat16', 'float16'",
    ),
    "collect: site": (
        on_model("collect", "--site", "last"),
        r"cannot read 'last' as a site; expected for example 5\.re",
    ),
    "collect: site beyond": (
        on_model("collect", "--site", "3.z"),
        r"3\.z: layer out of range; the model has layers 0 to 2",
    ),
    "collect: site twice": (
        on_model("collect", "--site", "embed", "--site", "embed"),
        r"--site: expected each site once, got embed, embed",
    ),
    "collect: length": (on_model("collect", "--max-length", 1), r"'--max-length': .* greater than or equal to 2; see"),
    "collect: no scores": (
        on("collect", "@model", "--layout", "prompts", "--data", "@unscored.jsonl"),
        r"no prompt has a toxicity score, so there are no classes; use --layout texts",
    ),
    "collect: nothing left": (on_model("collect", "--skip", 8), r"holds 8 rows, so none is left after --skip 8"),
    "collect: into a file": (
        on("collect", "@model", "--data", "@pairs.tsv", "--out", "@texts.txt"),
        r"texts\.txt: not an empty folder and no activation store; choose another one",
    ),
    "collect: below a file": (
        on("collect", "@model", "--data", "@pairs.tsv", "--out", "@texts.txt/x"),
        r"cannot make its folder \(.*\); choose another place",
    ),
    "probe: no store": (on("probe", "@model"), r"no activation store there \(index\.json is missing\); expected what"),
    "probe: one fold": (
        on("probe", "@store", "--folds", 1),
        r"'--folds': .* greater than or equal to 2; see interp-unl",
    ),
    "probe: folds": (on("probe", "@store", "--folds", 50), r"50 folds need as many groups, got 8; ask for fewer folds"),
    "probe: C": (on("probe", "@store", "--C", "nan"), r"C: expected a finite number or a list, .*, got nan"),
    "directions: none": (on("directions", "@none", "--model", "@model"), r"no such file or folder; expected a folder"),
    "directions: pickle": (on("directions", "@v.pt", "--model", "@model"), r"pickled files are not read: they can run"),
    "directions: no site": (
        on("directions", "@v.npy", "--model", "@model"),
        r"does not say where it belongs; give its s",
    ),
    "directions: at z": (
        on("directions", "@v.npy", "--model", "@model", "--site", "1.z"),
        r"1\.z is not in the residual stream; give directions at",
    ),
    "directions: category": (
        on("directions", *PROBED, "--category", "x"),
        r"--category: expected NAME=PATH, each name",
    ),
    "directions: transfer": (on("directions", *PROBED, "--train", "a=b"), r"needs both --train NAME=PROBES and --test"),
    "directions: token": (
        on("directions", *PROBED, "--data", "@pairs.tsv", "--layout", "pairs", "--token", "zork zork"),
        r"'zork zork' is 2 tokens of this tokenizer; expected exactly one$",
    ),
    "heatmap: no probes": (
        on_model("heatmap", "--probes", "@none"),
        r"probes\.json: no such file; expected an artifact",
    ),
    "heatmap: site": (
        on_model("heatmap", "--probes", "@probes", "--site", "1.z"),
        r"no probe at 1\.z; there are probes",
    ),
    "unlearn: no method": (on_model("unlearn"), r"give --objective, or --recipe which names one"),
    "unlearn: method": (
        on_model("unlearn", "--objective", "magic"),
        r"unknown objective 'magic'; expected one of civil",
    ),
    "unlearn: recipe": (
        on_model("unlearn", "--recipe", "../x"),
        r"unknown recipe '\.\./x'; expected one of adaptive_rmu",
    ),
    "unlearn: no layers": (rmu(), r"objective cosine_rmu needs --layers, for example --layers 2-5"),
    "unlearn: layers": (rmu("--layers", "²"), r"cannot read '²' as layers; write for example 3 or 1,4 or 2-6"),
    "unlearn: layers down": (rmu("--layers", "4-2"), r"cannot read '4-2' as layers; write for example 3 or 1,4 or 2-6"),
    "unlearn: many layers": (
        rmu("--layers", "0-99999999999"),
        r"cannot read '0-99999999999' as layers; write for exam",
    ),
    "unlearn: layer beyond": (rmu("--layers", 3), r"layers \[3\] out of range; the model has layers 0 to 2"),
    "unlearn: steps": (rmu("--layers", 1, "--steps", 0), r"steps must be more than 0, got 0"),
    "unlearn: rate": (
        rmu("--layers", 1, "--learning-rate", "nan"),
        r"learning_rate: expected a finite number, got nan",
    ),
    "unlearn: infinite loss": (
        rmu("--layers", 1, "--learning-rate", "1e30", "--steps", 5),
        r"the loss is (inf|nan) at step \d; the original weights are put back; lower the learning rate",
    ),
    "unlearn: roles": (rmu("--layers", 1, "--roles", "x"), r"no parameter has role x; this model has attn\.k, attn\.o"),
    "unlearn: rule": (rmu("--layers", 1, "--rule", "x"), r"unknown update rule 'x'; expected one of project_conflicts"),
    "unlearn: topic": (rmu("--layers", 1, "--topic", "@pairs.tsv"), r"two of the files have the same name"),
    "unlearn: by": (
        on_model("unlearn", "--objective", "counterfactual", "--by", "x"),
        r"by: expected one of cosine, re",
    ),
    "unlearn: inference": (
        on_model("unlearn", "--objective", "steering"),
        r"there is no model to write: distil it with",
    ),
    "unlearn: teacher": (
        on_model("unlearn", "--objective", "oracle", "--teacher", "@none"),
        r"none: no such directory",
    ),
    "unlearn: estimator": (
        on_model("unlearn", "--objective", "probe_multi", "--probes", "@probes", "--estimator", "lda"),
        r"estimator: expected logistic or mean_difference, got 'lda'",
    ),
    "evaluate: alone": (on_model("evaluate"), r"Missing option '--against'; see interp-unlearn evaluate --help"),
    "evaluate: seed": (
        on_model("evaluate", "--against", "@model", "--seed", -1),
        r"'--seed': .* greater than or equal",
    ),
    "exam: layout": (
        on("exam", "@model", "--questions", "@texts.txt"),
        r"unknown layout '\.txt'; expected \.json \(WMDP",
    ),
    "exam: form": (
        on("exam", "@model", "--questions", "@q.json", "--form", "essay"),
        r"no form essay; expected of text",
    ),
    "exam: too long": (
        on("exam", "@model", "--questions", "@long.json"),
        r"has 83 tokens, the model takes 64; cut the",
    ),
    "facts: layout": (on("facts", "@model", "--data", "@pairs.tsv"), r"pairs\.tsv:1: not valid JSON: .* at column 1"),
    "facts: tokens": (on("facts", "@model", "--data", "@facts.jsonl", "--max-new-tokens", 0), r"greater than or equal"),
    "toxicity: scorer": (on("toxicity", *SCORED), r"1 weights are missing from the checkpoint, first score\.weight"),
    "toxicity: nucleus": (on("toxicity", *SCORED, "--top-p", 2), r"expected 0 < top_p <= 1 .*, got top_p=2\.0"),
    "toxicity: prompts": (on("toxicity", "@model", "--prompts", "@none", "--scorer", "@model"), r"none: no such file"),
    "classifier: kind": (
        on("classifier", "--data", "@pairs.tsv", "--kind", "x"),
        r"expected one of encoder, decoder, got",
    ),
    "classifier: epochs": (
        on("classifier", "--data", "@pairs.tsv", "--epochs", 0),
        r"epochs: expected at least 1, got 0",
    ),
    "score: no classifier": (on_model("score"), r"1 weights are missing from the checkpoint, first score\.weight"),
    "drift: site": (
        on_model("drift", "--against", "@model", "--site", "1.zork"),
        r"unknown component 'zork'; expected",
    ),
    "drift: original": (
        on_model("drift", "--against", "@none"),
        r"none: no such directory; expected a model directory",
    ),
    "attack: name": (attack("magic"), r"no attack 'magic'; expected all or relearn, relearn_lora"),
    "attack: bits": (attack("quantise", "--bits", 1), r"bits: expected 2 to 16, got \(1,\)"),
    "attack: layer": (attack("steer_back", "--layer", 3), r"--layer 3: out of range; .*model has layers 0 to 2"),
    "attack: rate": (
        attack("relearn", "--learning-rate", "nan"),
        r"learning_rates: expected a list, each a finite number",
    ),
    "attack: seed": (
        attack("prune", "--seed", -1),
        r"'--seed': .* greater than or equal to 0; see interp-unlearn attack",
    ),
    "attack: another run": (attack("prune", "--out", "@store"), r"is not empty and holds no run\.json; choose another"),
    "figures: none": (
        drawing("@none"),
        r"no table to draw there; expected the folder of",
    ),
    "figures: effects": (
        drawing("@effects"),
        r"causal_effects\.parquet: has no column measure; run directions",
    ),
    "figures: paths": (
        drawing("@paths"),
        r"causal_effects\.parquet: '\.\./\.\./x' is no measure; run directions",
    ),
    "figures: study": (
        drawing("@study"),
        r"summary\.json: no such file; expected an artifact written by an",
    ),
    "figures: excess": (
        drawing("@excess"),
        r"plot_excess needs the columns contender, .*; its table has only a",
    ),
    "figures: sensitivity": (
        drawing("@varied"),
        r"plot_sensitivity needs the columns variation, .*; its table has only a",
    ),
    "figures: tokens": (
        drawing("@tokens"),
        r"draw_token_heatmap needs the columns row, .*; its table has only a",
    ),
    "dissect: alone": (on("dissect", "@model"), r"Missing option '--against'; see interp-unlearn dissect --help"),
    "evidence: workers": (
        on("evidence", "--workers", 0),
        r"'--workers': .* greater than or equal to 1; see interp-unl",
    ),
    "card: none": (
        on("card", "@none", out=False),
        r"none: holds no unlearn\.json; expected a model that unlearn wrote",
    ),
    "push: none": (
        on("push", "@none", "a/b", out=False),
        r"none: holds no README\.md; expected a folder with its c",
    ),
    "report: none": (on("report", "@none", out=False), r"none: no such folder; expected one that a verb wrote"),
    "reproduce: workers": (
        on("reproduce", "--workers", 0),
        r"'--workers': .* greater than or equal to 1; see interp-u",
    ),
    "reproduce: another run": (on("reproduce", "--out", "@probes"), r"probes holds another run \(.*\); choose another"),
    "sensitivity: another run": (
        on("sensitivity", "--out", "@store"),
        r"is not empty and holds no run\.json; choose another",
    ),
    "replicate: one": (
        on("replicate", "--organisms", 1),
        r"'--organisms': .* greater than or equal to 2; see interp-un",
    ),
    "replicate: another run": (
        on("replicate", "--out", "@store"),
        r"is not empty and holds no run\.json; choose another",
    ),
    "compare: goal": (on("compare", "--goal", "x"), r"'x' is not one of 'knowledge', 'toxicity'; see interp-unlearn c"),
    "compare: organism": (
        on("compare", "--organism", "nowhere"),
        r"nowhere has no twin knows_all, never_toxic; make",
    ),
    "compare: only": (on("compare", "--only", "magic"), r"no contender magic; expected of none, twin, probe_single"),
    "organism: verb": (
        on("organism", "zork", out=False),
        r"No such command 'zork'; see interp-unlearn organism --h",
    ),
    "organism: twin": (
        on("organism", "build", "--twin", "x"),
        r"unknown twins \['x'\]; choose from knows_all, never",
    ),
    "organism: seed": (
        on("organism", "build", "--world-seed", "x"),
        r"'--world-seed': .*valid integer.*; see interp-unlearn o",
    ),
    "organism: device": (on("organism", "build", "--device", "abacus"), r"--device abacus: Expected one of cpu, cuda"),
    "organism: into a file": (
        on("organism", "data", "--out", "@texts.txt"),
        r"texts\.txt is a file, not a folder; choose ano",
    ),
    "organism: no twins": (
        checking("@none"),
        r"is no twin: expected build\.json there; run `interp-unlearn",
    ),
    "organism: damaged": (
        checking("@twins"),
        r"build\.json: world_seed: expected a whole number, got None; b",
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_bad_commands_are_refused_with_one_clear_line(
    case: str, workplace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command, message = CASES[case]
    capfd.readouterr()
    assert main([str(part) for part in command(workplace, tmp_path)]) == 2
    captured = capfd.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and re.search(message, errors[0]), captured.err
    assert captured.out == "" and "Traceback" not in captured.err
    assert not (tmp_path / "out").exists()


def test_every_verb_is_in_the_table() -> None:
    verbs = {case.partition(":")[0] for case in CASES}
    assert {command.callback.__name__ for command in app.registered_commands if command.callback} <= verbs
    assert {group.name for group in app.registered_groups} <= verbs
