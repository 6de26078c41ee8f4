"""The study on several organisms: tests over them against sums made by hand, and the pipeline at a small size."""

import importlib
import shutil
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

from interp_unlearn.artifacts import read_json, read_parquet, write_json, write_parquet
from interp_unlearn.cli import app
from interp_unlearn.errors import ArtifactError, ConfigError
from interp_unlearn.figures import plot_replication
from interp_unlearn.organism.build import SHIPPED_TWINS, BuildConfig
from interp_unlearn.organism.shipped import shipped_twins, twin_hashes
from interp_unlearn.statistics import holm
from interp_unlearn.study import StudyConfig
from interp_unlearn.study.crossover import conclude, contrast_table, organism_differences, without_failed_oracles
from interp_unlearn.study.plan import FACTORIAL
from interp_unlearn.study.replica import build_replica
from interp_unlearn.study.replication import ReplicationConfig, replicate

module = importlib.import_module("interp_unlearn.study.replication")
replica = importlib.import_module("interp_unlearn.study.replica")
N = 8
RNG = np.random.default_rng(0)
EFFECT = {
    ("knowledge", "random"): 0.6,
    ("knowledge", "probe"): 0.1,
    ("toxicity", "random"): 0.2,
    ("toxicity", "probe"): 0.9,
}


def efficacies(shift: float = 0.0) -> pd.DataFrame:
    """Efficacy of each cell in each organism; `shift` is added where a probe meets toxicity."""
    lines: list[dict[str, Any]] = []
    for organism, goal, objective in product(range(N), ("knowledge", "toxicity"), FACTORIAL):
        target = objective.split("_")[0]
        value = EFFECT[goal, target] + (shift if (goal, target) == ("toxicity", "probe") else 0.0)
        value += RNG.normal(0, 0.05)
        for measure, found in (("efficacy", value), ("broken", 0.0)):
            lines.append(
                {"organism": organism, "objective": objective, "goal": goal, "measure": measure, "value": found}
            )
    return pd.DataFrame(lines)


def test_contrasts_are_paired_over_organisms():
    means = efficacies()
    table = contrast_table(means).set_index(["layers", "contrast"])
    at = means.loc[means["measure"] == "efficacy"].set_index(["goal", "objective", "organism"])["value"]
    difference = (at["toxicity"]["probe_multi"] - at["toxicity"]["random_multi"]).to_numpy()
    row = table.loc[("multi", "toxicity: probe minus random")]
    half = stats.t.ppf(0.975, N - 1) * stats.sem(difference)
    assert [row["mean"], row["low"], row["high"]] == pytest.approx(
        [difference.mean(), difference.mean() - half, difference.mean() + half]
    )
    assert row["n"] == N and row["p_value"] == 2.0**-N  # every organism shows it
    assert table.loc[("multi", "crossover"), "p_value"] == 2.0**-N
    assert table.loc[("multi", "crossover"), "p_adjusted"] == pytest.approx(3 * 2.0**-N)
    assert table["p_adjusted"].notna().all()


def test_one_difference_alone_is_no_crossover():
    table = contrast_table(efficacies(shift=-0.7)).set_index(["layers", "contrast"])  # probe = random on toxicity
    assert table.loc[("mean", "crossover"), "p_value"] > 0.05 > table.loc[("mean", "interaction"), "p_value"]


def test_the_conclusions_change_with_the_numbers() -> None:
    def concluded(shift: float, broken: float = 0.0) -> str:
        means = efficacies(shift)
        means.loc[(means["measure"] == "broken") & means["objective"].str.startswith("probe"), "value"] = broken
        return conclude(means, contrast_table(means))

    shown = concluded(0.0, 0.25)
    assert shown.count("the crossover is shown (p = 0.012 after Holm)") == 3 and shown.count("a difference,") == 6
    assert shown.count("they break 0.25 and 0.00 of the text") == shown.count("they break 0.00 and 0.25") == 3
    other = concluded(-1.4)  # probe far below random on toxicity too
    assert (
        other.count("the crossover is not shown (p = 1.000 after Holm)")
        == 3
        == other.count("a difference the other way")
    )
    assert other.count("a difference,") == 3
    means = efficacies()
    contrasts = contrast_table(means)
    at = means.loc[means["measure"] == "efficacy"].set_index(["goal", "objective", "organism"])["value"]
    difference = (at["toxicity"]["probe_single"] - at["toxicity"]["random_single"]).to_numpy()
    ordered = np.sort(difference)
    ends = f"{ordered[:-2].mean():.2f} to {ordered[2:].mean():.2f} with any one or two organisms left out"
    assert ends in conclude(means, contrasts)
    small = contrasts.assign(mean=-0.0012, low=-0.002, high=-0.0004)
    assert "-0.001 [-0.002, 0.000], a difference the other way within 0.05," in conclude(means, small)
    for low, high, verdict in (
        (-0.04, 0.04, "none beyond 0.05,"),
        (-0.04, 0.06, "undecided,"),
        (0.01, 0.04, "a difference within 0.05,"),
        (0.01, 0.06, "a difference,"),
        (-0.02, -0.01, "a difference the other way within 0.05,"),
    ):
        bounds = contrasts.assign(low=low, high=high)
        text = conclude(means, bounds)
        assert text.count(f"{low:.2f}, {high:.2f}], {verdict}") == 6, text
        assert ("the crossover is shown" in text) == (low > 0), "both intervals have to leave out 0"
    weak = contrasts.assign(p_adjusted=0.06)
    assert "the crossover is shown" not in conclude(means, weak)


def test_organisms_whose_oracle_fails_say_nothing() -> None:
    means = efficacies()
    oracle = pd.DataFrame(
        [
            {"organism": n, "objective": "oracle", "goal": goal, "measure": "efficacy", "value": value}
            for n in range(N)
            for goal, value in (("knowledge", 0.95), ("toxicity", 0.9 if n else 0.89))
        ]
    )
    found = without_failed_oracles(pd.concat([means, oracle], ignore_index=True))
    assert sorted(set(found["organism"])) == list(range(1, N)) and set(
        without_failed_oracles(means)["organism"]
    ) == set(range(N))
    broken = oracle.assign(value=oracle["value"].where(oracle["organism"] != 3, float("nan")))
    assert 3 not in set(without_failed_oracles(pd.concat([means, broken]))["organism"]), "not measured is not passed"


def test_the_figure_shows_every_organism_and_the_means_of_the_table(tmp_path: Path):
    means = efficacies()
    write_parquet(tmp_path / "efficacy.parquet", means)
    write_parquet(tmp_path / "contrasts.parquet", contrast_table(means))
    differences = organism_differences(means)
    for (layers, contrast), part in differences.groupby(["layers", "contrast"]):
        row = contrast_table(means).set_index(["layers", "contrast"]).loc[(layers, contrast)]
        assert part["value"].mean() == pytest.approx(row["mean"]) and part["organism"].tolist() == list(range(N))
    first, second = plot_replication(differences, contrast_table(means)).axes
    assert "toxicity" in first.get_title("left") and "knowledge" in second.get_title("left")
    hollow, full = (np.asarray(line.get_xdata(), dtype=float).tolist() for line in first.lines[:2])
    ours = differences.loc[(differences["layers"] == "single") & differences["contrast"].str.startswith("toxicity")]
    assert hollow == ours["value"].tolist() and full == [pytest.approx(np.mean(hollow))]
    result = CliRunner().invoke(app, ["figures", str(tmp_path)])
    assert result.exit_code == 0 and (tmp_path / "figures" / "replication.pdf").exists(), result.output


def test_holm_against_the_definition():
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0] and holm(0.2).tolist() == [0.2]
    for wrong in ([], [0.1, 1.2], [float("nan")]):
        with pytest.raises(ConfigError, match="p-values between 0 and 1"):
            holm(wrong)


@pytest.mark.parametrize("failing", ["knows_all", "never_toxic", ""])
def test_a_replica_has_its_own_world_and_says_which_gates_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
):
    asked: list[tuple[int, int, tuple[str, ...]]] = []

    def build(folder: Path, config: BuildConfig, twins: tuple[str, ...]) -> None:
        asked.append((config.world_seed, config.init_seed, twins))
        for twin in twins:
            shutil.copytree(shipped_twins() / twin, folder / twin, dirs_exist_ok=True)
            (folder / twin / "quality.json").unlink()

    def check(folder: Path, twins: Sequence[str]) -> None:
        for twin in twins:
            gate = {"name": "benign cloze", "passed": twin != failing}
            write_json(folder / twin / "quality.json", {"passed": gate["passed"], "gates": [gate]})

    monkeypatch.setattr(replica, "build_organism", build)
    monkeypatch.setattr(replica, "check_organism", check)
    folder = build_replica(tmp_path, 3, BuildConfig())
    stages = [SHIPPED_TWINS[:1]] if failing == "knows_all" else [SHIPPED_TWINS[:1], SHIPPED_TWINS]
    assert asked == [(3, 3, twins) for twins in stages], "twins of an original that failed are not worth building"
    described = replica.describe_organism(folder, 3)
    gates = replica.read_gates(folder)
    assert all(gates[twin] == [{"name": "benign cloze", "passed": twin != failing}] for twin in gates)
    assert described["passed"] == (not failing) and described["failed"] == (f"{failing}: benign cloze" * bool(failing))
    built = {twin for twin in SHIPPED_TWINS if described[f"{twin}_sha256"]}
    assert built == set(stages[-1]) and described["knows_all_sha256"] == twin_hashes()["knows_all"]
    monkeypatch.setattr(replica, "build_organism", lambda *arguments: pytest.fail("built again"))
    assert build_replica(tmp_path, 3, BuildConfig()) == folder


@pytest.fixture
def studied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replicas at no cost: organism 2 fails a gate, the others have made-up measures; which were studied, in order."""
    numbers: list[int] = []

    def one_after_another(task: Callable[..., Any], calls: Sequence[tuple[Any, ...]], workers: int, label: str) -> None:
        for arguments in calls:
            task(*arguments)

    def build(out: Path, number: int, config: BuildConfig) -> Path:
        folder = out / "organisms" / str(number)
        shutil.copytree(shipped_twins(), folder, dirs_exist_ok=True)
        if number == 2:
            report = read_json(folder / "knows_all" / "quality.json")
            report["gates"][0]["passed"] = False
            write_json(folder / "knows_all" / "quality.json", report)
        return folder

    def study(out: Path, workers: int, config: StudyConfig, organism: Path) -> None:
        number = int(out.name)
        numbers.append(number)
        table = efficacies().loc[lambda t: t["organism"] == number].drop(columns="organism")
        out.mkdir(parents=True, exist_ok=True)
        write_parquet(out / "dissociation.parquet", table.assign(seed=0))

    monkeypatch.setattr(module, "run_side_by_side", one_after_another)
    monkeypatch.setattr(replica, "build_replica", build)
    monkeypatch.setattr(replica, "reproduce", study)
    return numbers


def test_organisms_that_failed_a_gate_are_left_out_before_anything_is_unlearned(tmp_path: Path, studied: list[int]):
    out = tmp_path / "run"
    assert replicate(out, ReplicationConfig(organisms=4)) == []
    assert studied == [1, 3, 0]
    organisms = read_parquet(out / "organisms.parquet")
    assert organisms["organism"].tolist() == [0, 1, 2, 3]
    assert organisms["passed"].tolist() == [True, True, False, True]
    assert all(len(digest) == 64 for digest in organisms["knows_all_sha256"])
    text = (out / "replication.md").read_text(encoding="utf-8")
    assert "3 organisms" in text and "below 0.125" in text
    assert "One layer: on toxicity probe minus random is " in text
    first = organisms["knows_all_sha256"][0][:12]
    assert f"| 1 | all passed | not run | `{first}` |" in text and "| 2 | knows_all: benign cloze | " in text
    assert set(read_parquet(out / "contrasts.parquet")["layers"]) == {"single", "multi", "mean"}
    with pytest.raises(ArtifactError, match="another run"):
        replicate(out, ReplicationConfig(organisms=5))
    with pytest.raises(ConfigError, match="two organisms, got 1"):
        ReplicationConfig(organisms=1)


def test_organisms_made_on_several_machines_are_put_together(tmp_path: Path, studied: list[int]):
    here, there = tmp_path / "here", tmp_path / "there"
    config = ReplicationConfig(organisms=4)
    assert replicate(here, config, only=[0, 3]) == [1, 2] and not (here / "replication.md").exists()
    assert replicate(there, config, only=[1]) == [0, 2, 3]
    shutil.copytree(there / "replicas" / "1", here / "replicas" / "1")
    measured = read_parquet(there / "replicas" / "1" / "dissociation.parquet")
    gates = read_json(there / "replicas" / "1" / "replica.json")["gates"]
    assert gates and all(gate["passed"] for of_twin in gates.values() for gate in of_twin)
    assert replicate(here, config) == [] and studied == [3, 0, 1]  # none was made again, and 2 failed its gate
    shutil.rmtree(here / "organisms")
    shutil.rmtree(here / "studies")
    assert replicate(here, config) == [] and studied == [3, 0, 1], "the weights of a made replica are not needed"
    joined = read_parquet(here / "efficacy.parquet")
    ours = joined.loc[joined["organism"] == 1].set_index(["objective", "goal", "measure"])["value"]
    assert ours.to_dict() == measured.set_index(["objective", "goal", "measure"])["value"].to_dict()
    with pytest.raises(ConfigError, match="no organism 4 among 4"):
        replicate(here, config, only=[4])

    record = here / "replicas" / "1" / "replica.json"
    found = read_json(record)
    found["identity"]["study"]["steps"] += 1
    write_json(record, found)
    with pytest.raises(ArtifactError, match=r"other settings .* make organism 1 anew"):
        replicate(here, config)


def test_the_command_says_which_organisms_are_missing(tmp_path: Path, studied: list[int]):
    told = ["replicate", "--organisms", "3", "--out", str(tmp_path / "run")]
    first = CliRunner().invoke(app, [*told, "--only", "0"])
    assert first.exit_code == 0 and "lacks the organisms 1, 2:" in first.output and studied == [0]
    second = CliRunner().invoke(app, told)
    assert second.exit_code == 0 and "| layers | contrast |" in second.output and studied == [0, 1]
