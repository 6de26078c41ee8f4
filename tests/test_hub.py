"""Cards say what the records say and no more; nothing is pushed but what was asked for, where it was asked for."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from conftest import make_hf, make_tokenizer
from hub_cache import COMMIT, files_of, make_probes, put_in_cache
from transformers import AutoModelForCausalLM

from interp_unlearn import HookedModel
from interp_unlearn.artifacts import write_json
from interp_unlearn.attacks import default_attacks
from interp_unlearn.cli import main
from interp_unlearn.data import Pair, write_pairs
from interp_unlearn.errors import ArtifactError, ConfigError, HubError
from interp_unlearn.hub import judge_attacks, model_card, plan_push, push_to_hub, write_model_card, write_probe_card
from interp_unlearn.hub.markdown import MARKER


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0, arguments


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, unlearned, evaluated and attacked, by the verbs themselves."""
    folder = tmp_path_factory.mktemp("workplace")
    HookedModel(make_hf("llama"), make_tokenizer()).save_pretrained(folder / "original")
    nouns = ("cat", "dog", "hill", "mat")
    pairs = [
        Pair(f"the {noun} {verb} blue small", (f"the {noun} {verb} red",)) for noun in nouns for verb in ("sat", "ran")
    ]
    write_pairs(folder / "pairs.tsv", pairs)
    data = ("--data", folder / "pairs.tsv")
    against = ("--against", folder / "original", *data)
    steps = ("--steps", 8, "--learning-rate", "3e-3", "--seed", 7, "--roles", "all", "--batch-size", 4)
    run("unlearn", folder / "original", *data, "--objective", "gradient_ascent", *steps, "--out", folder / "unlearned")
    run("evaluate", folder / "unlearned", *against, "--out", folder / "evaluation")
    run("evaluate", folder / "original", *against, "--out", folder / "of-original")
    run("attack", "quantise", folder / "unlearned", *against, "--bits", 8, "--out", folder / "attacks")
    return folder


def test_the_card_says_what_was_measured_and_what_was_not(workplace: Path) -> None:
    given, attacked = [workplace / "evaluation"], [workplace / "attacks"]
    card = model_card(workplace / "unlearned", evaluations=given, attacks=attacked, licence="mit")
    entries = yaml.safe_load(card.split("---")[1])
    assert entries["license"] == "mit" and "unlearning" in entries["tags"] and "base_model" not in entries
    record = json.loads((workplace / "unlearned" / "run.json").read_text())
    for expected in (
        "`gradient_ascent`, seed 7, 8 steps",
        record["identity"]["data"][0],
        record["identity"]["model_hash"],
        "pairs.tsv",
        "lies below 0.1 in every attempt",
    ):
        assert expected in card
    predictions = pd.read_parquet(workplace / "evaluation" / "predictions.parquet")
    assert all(f"{value:.4g}" in card for value in predictions["value"])
    worst = pd.read_parquet(workplace / "attacks" / "worst.parquet").iloc[0]
    assert f"{worst['recovered']:.3g} ({worst['recovered_low']:.3g} to" in card
    run_attacks, missing = card.split("## Not measured")
    assert "| quantise | **" in run_attacks and "`quantise`: not run" not in missing
    for attack in default_attacks():
        assert (f"attack `{attack.name}`: not run" in missing) == (attack.name != "quantise")
        assert attack.name == "quantise" or f"| {attack.name} |" not in run_attacks
    assert "(`toxicity`): not measured" in missing and "(`evaluate`): not measured" not in missing
    assert str(workplace) not in card and "sat blue" not in card


def test_without_measurements_the_card_claims_nothing(workplace: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "unlearn.json", {"objective": "rmu", "config": {"seed": 1}})
    card = model_card(tmp_path)  # nothing was measured, so no weights are needed to check it
    assert "No attack was run" in card and "Nothing was measured" in card and "were not recorded" in card
    assert "**survived**" not in card and "(`evaluate`): not measured" in card


def test_measurements_of_another_model_are_refused(workplace: Path) -> None:
    with pytest.raises(ArtifactError, match="of-original: was measured on other weights"):
        model_card(workplace / "unlearned", evaluations=[workplace / "of-original"])
    with pytest.raises(ArtifactError, match=r"measured on other weights.*--dtype"):
        model_card(workplace / "unlearned", evaluations=[workplace / "evaluation"], dtype=torch.bfloat16)
    with pytest.raises(ArtifactError, match="holds attacks, expected an evaluation"):
        model_card(workplace / "unlearned", evaluations=[workplace / "attacks"])
    with pytest.raises(ArtifactError, match="holds evaluate, expected what attack wrote"):
        model_card(workplace / "unlearned", attacks=[workplace / "evaluation"])
    with pytest.raises(ArtifactError, match=r"holds no unlearn.json"):
        model_card(workplace / "original")


def test_another_original_is_said(workplace: Path, tmp_path: Path) -> None:
    folder = workplace / "unlearned"
    record = json.loads((folder / "run.json").read_text())
    assert "Compared with another model" not in model_card(folder, evaluations=[workplace / "evaluation"])
    for name, path in files_of(folder).items():
        (tmp_path / name).write_bytes(path.read_bytes())
    record["identity"]["model_hash"] = "0" * 64
    write_json(tmp_path / "run.json", record)
    assert "Compared with another model" in model_card(tmp_path, evaluations=[workplace / "evaluation"])


def attempts(**shares: list[tuple[float, float, float]]) -> pd.DataFrame:
    rows = [
        {
            "attack": name,
            "setting": str(i),
            "step": None,
            "score": 0.0,
            "n": 9,
            "reason": "no gap" if math.isnan(share) else None,
        }
        | {"recovered": share, "recovered_low": low, "recovered_high": high}
        for name, found in shares.items()
        for i, (share, low, high) in enumerate(found)
    ]
    return pd.DataFrame(rows)


def test_verdicts() -> None:
    nan = math.nan
    table = judge_attacks(
        attempts(
            survived=[(0.01, -0.05, 0.09), (-0.2, -0.3, 0.0)],
            recovered=[(0.0, -0.1, 0.05), (0.3, 0.1, 0.5)],
            undecided=[(0.05, -0.1, 0.2)],
            open_end=[(0.0, -0.1, 0.05), (0.0, nan, nan)],
            half=[(0.0, -0.1, 0.05), (nan, nan, nan)],
            nothing=[(nan, nan, nan)],
        ),
        0.1,
        known=("survived", "relearn"),
    ).set_index("attack")
    assert table["verdict"].to_dict() == {
        "recovered": "recovered",
        "undecided": "undecided",
        "survived": "survived",
        "open_end": "undecided",
        "half": "undecided",
        "nothing": "not measured",
        "relearn": "not run",
    }
    assert table.index[0] == "recovered" and table.index[-1] == "relearn"
    assert table.loc["recovered", "setting"] == "1" and table.loc["recovered", "n_attempts"] == 2
    assert table.loc["nothing", "reason"] == "no gap"
    # A threshold decides what is called survived: that is why it is stated.
    assert judge_attacks(attempts(a=[(0.2, 0.15, 0.25)]), 0.3, known=())["verdict"].tolist() == ["survived"]
    for wrong in (0, 1, -0.5, math.nan):
        with pytest.raises(ConfigError, match="threshold: expected a share"):
            judge_attacks(attempts(a=[(0, 0, 0)]), wrong)


def test_a_card_of_somebody_else_is_kept(workplace: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "unlearn.json", {"objective": "rmu", "config": {}})
    (tmp_path / "README.md").write_text("the original's card")
    with pytest.raises(ArtifactError, match=r"was not written here.*--force"):
        write_model_card(tmp_path)
    assert (tmp_path / "README.md").read_text() == "the original's card"
    with pytest.raises(ArtifactError, match="was not written for this model"):
        plan_push(tmp_path, "me/model")
    write_model_card(tmp_path, overwrite=True)
    write_model_card(tmp_path, title="mine")  # one of ours is written anew
    assert "# mine" in (tmp_path / "README.md").read_text()


def test_the_card_of_probes(tmp_path: Path) -> None:
    make_probes().save_pretrained(tmp_path / "probes")
    run("card", tmp_path / "probes", "--license", "mit")
    card = (tmp_path / "probes" / "README.md").read_text()
    assert all(expected in card for expected in ("abc123", "0.8765", "without the BOS token", 'license: "mit"'))
    measured, missing = card.split("Not measured: ")
    assert "auroc_length" in missing and "auroc_length" not in measured  # a column without a number is none
    assert plan_push(tmp_path / "probes", "me/probes").card == card
    assert main(["card", str(tmp_path / "probes"), "--attack", str(tmp_path)]) == 2
    with pytest.raises(ArtifactError, match=r"holds no probes.json"):
        write_probe_card(tmp_path)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])  # the last two tie their embeddings
def test_what_is_saved_is_a_plain_checkpoint(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = HookedModel(make_hf(architecture), make_tokenizer())
    with torch.no_grad():
        for parameter in model.hf.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    model.mark_changed()
    model.save_pretrained(tmp_path / "model")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    saved = dict(plain.named_parameters())
    assert all(torch.equal(value, saved[name]) for name, value in model.hf.named_parameters())
    ids = torch.tensor([[1, 5, 6, 7]])
    assert torch.equal(plain.eval()(ids).logits, model.hf(ids).logits)
    put_in_cache(tmp_path / "cache", "me/model", files_of(tmp_path / "model"), kind="model")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    far = HookedModel.from_pretrained("me/model", revision="main")
    assert far.hash() == model.hash() and COMMIT in far.name


class FakeHub:
    """What `push_to_hub` uses of `HfApi`, and a note of all that was asked."""

    def __init__(self, private: bool | None = None, error: Exception | None = None) -> None:
        self.private, self.error, self.asked = private, error, []

    def repo_exists(self, repo_id: str, *, repo_type: str) -> bool:
        self.asked.append("repo_exists")
        if self.error:
            raise self.error
        return self.private is not None

    def repo_info(self, repo_id: str, *, repo_type: str) -> SimpleNamespace:
        return SimpleNamespace(private=self.private)

    def create_repo(self, repo_id: str, *, private: bool, repo_type: str) -> None:
        self.asked.append("create_repo")
        self.private = private

    def create_commit(self, repo_id: str, *, operations: list[Any], commit_message: str, repo_type: str) -> Any:
        self.asked.append("create_commit")
        self.pushed = {operation.path_in_repo: operation.path_or_fileobj for operation in operations}
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "README.md").write_text(f"{MARKER}\na card")
    (folder / "model.safetensors").write_bytes(b"12345")
    (folder / ".hidden").write_text("secret")
    return folder


def test_a_push_makes_a_private_repository_and_sends_what_the_plan_lists(folder: Path) -> None:
    hub = FakeHub()
    assert push_to_hub(folder, "me/model", api=hub) == "https://hub/me/model/commit/1"
    assert hub.private is True and hub.asked == ["repo_exists", "create_repo", "create_commit"]
    plan = plan_push(folder, "me/model")
    assert plan.private and plan.files == (("README.md", 36), ("model.safetensors", 5)) and plan.size == 41
    assert list(hub.pushed) == [name for name, _ in plan.files]
    opened = FakeHub()
    push_to_hub(folder, "me/model", private=False, api=opened)
    assert opened.private is False


def test_what_is_to_be_private_does_not_go_into_a_public_repository(folder: Path) -> None:
    hub = FakeHub(private=False)
    with pytest.raises(ConfigError, match=r"is public already.*--public"):
        push_to_hub(folder, "me/model", api=hub)
    assert "create_commit" not in hub.asked
    push_to_hub(folder, "me/model", private=False, api=hub)
    assert hub.asked[-1] == "create_commit"
    kept = FakeHub(private=True)
    push_to_hub(folder, "me/model", api=kept)
    assert kept.asked == ["repo_exists", "create_commit"]


def test_pushes_that_are_refused(folder: Path, tmp_path: Path) -> None:
    hub = FakeHub()
    for wrong in ("model", "a/b/c", "/x", "me/model@main"):
        with pytest.raises(ConfigError, match="expected a repository as owner/name"):
            push_to_hub(folder, wrong, api=hub)
    with pytest.raises(ArtifactError, match=r"holds no README.md.*interp-unlearn card"):
        push_to_hub(tmp_path, "me/model", api=hub)
    for name in ("weights.bin", "modeling.py"):
        (folder / name).write_text("x")
        with pytest.raises(ArtifactError, match="can run code"):
            push_to_hub(folder, "me/model", api=hub)
        (folder / name).unlink()
    (tmp_path / "private.txt").write_text("x")
    (folder / "link.txt").symlink_to(tmp_path / "private.txt")
    with pytest.raises(ArtifactError, match="outside of the folder"):
        push_to_hub(folder, "me/model", api=hub)
    (folder / "link.txt").unlink()
    assert hub.asked == []
    with pytest.raises(HubError, match="not pushed: who are you; log in"):
        push_to_hub(folder, "me/model", api=FakeHub(error=OSError("who are you\nmore")))


def test_the_verbs(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    hub = FakeHub()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    found = ("--evaluation", workplace / "evaluation", "--attack", workplace / "attacks", "--threshold", 0.2)
    run("card", workplace / "unlearned", *found)
    run("push", workplace / "unlearned", "me/model", "--dry-run")
    shown = capsys.readouterr().out
    assert "below 0.2 in every attempt" in shown and "nothing was pushed" in shown and "private" in shown
    assert all(name in shown for name in ("model.safetensors", "unlearn.json", "run.json")) and hub.asked == []
    run("push", workplace / "unlearned", "me/model", "--public")
    assert hub.private is False and "model.safetensors" in hub.pushed
    assert main(["card", str(tmp_path)]) == 2
    assert "holds no unlearn.json" in capsys.readouterr().err
