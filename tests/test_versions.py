"""Runs that go on under other versions than they were begun with are told so, and their records keep all of them."""

import logging
from pathlib import Path

import pytest
from conftest import TEXTS, make_hf
from planted_classes import DATA

from interp_unlearn import HookedModel, Site, collect
from interp_unlearn.activations import collection, plan, shards
from interp_unlearn.artifacts import claim_folder, environment, environments, read_json, record_run, write_json
from interp_unlearn.cli.outputs import has_finished
from interp_unlearn.errors import ArtifactError
from interp_unlearn.unlearning import Checkpoints, Misdirection, UnlearnConfig, training_run, unlearn

OLD = environment() | {"torch": "1.0"}
NEW = environment() | {"torch": "9.0"}
IDENTITY = {"seed": 0}


@pytest.fixture
def under(monkeypatch: pytest.MonkeyPatch):
    """Pretends other versions are installed."""

    def pretend(versions: dict[str, str]) -> None:
        for module in (environments, collection, training_run):
            monkeypatch.setattr(module, "environment", lambda: dict(versions))

    return pretend


def test_a_folder_that_goes_on_says_so_and_keeps_every_environment(under, tmp_path, caplog):
    folder = tmp_path / "run"
    under(OLD)
    for _ in range(2):
        claim_folder(folder, IDENTITY)
    record_run(folder, {"seconds": 3})
    begun = read_json(folder / "run.json")
    assert begun == {"identity": IDENTITY, "environment": OLD, "seconds": 3} and not caplog.records
    under(NEW)
    for _ in range(2):
        claim_folder(folder, IDENTITY)
    went_on = begun | {"environment": NEW, "earlier_environments": [OLD]}
    assert read_json(folder / "run.json") == went_on
    (warning,) = caplog.messages
    assert str(folder) in warning and "(torch 1.0 there, 9.0 here)" in warning and "numpy" not in warning
    under(OLD)
    claim_folder(folder, IDENTITY)
    assert read_json(folder / "run.json") == begun | {"earlier_environments": [NEW]}, "each once"


def test_a_refused_claim_and_a_question_write_nothing(under, tmp_path, caplog):
    folder = tmp_path / "run"
    under(OLD)
    claim_folder(folder, IDENTITY)
    write_json(folder / "result.json", {})
    before = (folder / "run.json").read_bytes()
    under(NEW)
    with pytest.raises(ArtifactError, match="another run"):
        claim_folder(folder, {"seed": 1})
    assert has_finished(folder, IDENTITY)
    assert (folder / "run.json").read_bytes() == before and not caplog.records


@pytest.mark.parametrize("record", [{"environment": [1]}, {"environment": 3}, {"earlier_environments": 3}, {}])
def test_a_record_that_somebody_has_edited_goes_on(record, under, tmp_path, caplog):
    under(NEW)
    write_json(tmp_path / "run.json", {"identity": IDENTITY} | record)
    claim_folder(tmp_path, IDENTITY)
    assert read_json(tmp_path / "run.json")["environment"] == NEW and not caplog.records


def test_a_store_names_the_versions_of_all_its_shards(under, llama, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(plan, "SHARD_ROWS", 2)

    def versions(folder: Path) -> tuple[dict[str, str], list[dict[str, str]] | None]:
        found = read_json(folder / "index.json")["metadata"]
        return found["versions"], found.get("earlier_versions")

    def collected(folder: Path) -> None:
        collect(llama, TEXTS, [Site(1, "resid_post")], out=folder, progress=False)

    def collected_in_part(folder: Path) -> None:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(shards.ShardWriter, "read_token_counts", killed)
            collected(folder)
        sorted(folder.glob("rows-*"))[-1].unlink()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    under(OLD)
    collected(tmp_path / "whole")
    collected_in_part(tmp_path / "part")
    assert versions(tmp_path / "whole") == versions(tmp_path / "part") == (OLD, None)
    under(NEW)
    caplog.clear()
    collected(tmp_path / "whole")
    assert versions(tmp_path / "whole") == (OLD, None), "all was made under these"
    assert not [record for record in caplog.records if record.levelno == logging.WARNING]
    for _ in range(2):
        collected(tmp_path / "part")
        assert versions(tmp_path / "part") == (NEW, [OLD])
    assert "goes on under other versions" in caplog.text
    for shard in (tmp_path / "part").glob("rows-*"):
        shard.unlink()
    under(OLD)
    collected(tmp_path / "part")
    assert versions(tmp_path / "part") == (OLD, None), "nothing was left of the others"


def test_a_store_that_is_saved_again_has_its_own_versions(under, llama, tmp_path):
    for versions in (OLD, NEW):
        under(versions)
        collect(llama, TEXTS, [Site(1, "resid_post")], progress=False).save(tmp_path)
        metadata = read_json(tmp_path / "index.json")["metadata"]
        assert metadata["versions"] == versions and "earlier_versions" not in metadata


def test_training_that_goes_on_names_both(under, tokenizer, tmp_path, caplog):
    kept, config = Checkpoints(tmp_path / "state", every=2), UnlearnConfig(steps=5, batch_size=2, layers=(0, 1))
    model = HookedModel(make_hf("llama"), tokenizer)

    def killed(step: int, _: HookedModel) -> None:
        raise KeyboardInterrupt

    def trained(name: str) -> dict[str, object]:
        model = HookedModel(make_hf("llama"), tokenizer)
        unlearn(model, Misdirection(1), DATA, config, resume=kept, progress=False).save(tmp_path / name)
        return read_json(tmp_path / name / "unlearn.json")

    assert "earlier_environments" not in trained("whole")
    under(OLD)
    with pytest.raises(KeyboardInterrupt):
        unlearn(model, Misdirection(1), DATA, config, checkpoints=(4,), callback=killed, resume=kept, progress=False)
    under(NEW)
    assert trained("broken")["earlier_environments"] == [OLD]
    assert "state goes on under other versions" in caplog.text
