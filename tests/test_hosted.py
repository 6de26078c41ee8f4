"""A hosted model, through nnsight's local simulation of NDIF: read like one that is here, and nothing else."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TEXTS, make_hf, make_tokenizer
from explicit_forward import every_site
from planted_classes import DATA, QUICK

from interp_unlearn import Add, HookedModel, Site, collect, unlearn
from interp_unlearn.errors import BackendError, CheckpointError, ConfigError
from interp_unlearn.models import parameters_by_role
from interp_unlearn.unlearning import Misdirection

SITE = Site(1, "resid_post")


@pytest.fixture(scope="module", params=["llama", "gpt2", "gemma2"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[HookedModel, HookedModel]:
    """A model that is here, and the same hosted."""
    path = tmp_path_factory.mktemp(request.param)
    make_hf(request.param).save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return HookedModel.from_pretrained(path), HookedModel.from_pretrained(path, "nnsight", remote="local")


@pytest.fixture(scope="module")
def hosted(pair: tuple[HookedModel, HookedModel]) -> HookedModel:
    return pair[1]


def test_no_weight_is_loaded(hosted: HookedModel) -> None:
    assert all(parameter.is_meta for parameter in hosted.hf.parameters())


def test_every_site_and_the_logits_are_the_same(pair: tuple[HookedModel, HookedModel]) -> None:
    here, hosted = pair
    sites = every_site("llama")
    batch = here.tokenize(TEXTS)
    with torch.no_grad():
        expected, found = (model.run(batch, reads=sites, logits=True) for model in (here, hosted))
    for site in sites:
        torch.testing.assert_close(found[site], expected[site], msg=lambda text, site=site: f"{site}: {text}")
    torch.testing.assert_close(found.logits, expected.logits)


def test_a_pass_ends_early_and_vectors_are_collected(pair: tuple[HookedModel, HookedModel], tmp_path: Path) -> None:
    stores = [collect(model, TEXTS, [SITE, Site(0, "z")], out=tmp_path / str(i)) for i, model in enumerate(pair)]
    for site in stores[0].sites:
        torch.testing.assert_close(stores[1][site], stores[0][site])
    here, hosted = (store.metadata["model_hash"] for store in stores)
    assert here != hosted == pair[1].hash()
    with torch.no_grad():
        assert pair[1].run(pair[1].tokenize(TEXTS), reads=[SITE]).logits is None


def test_whatever_is_not_reading_is_refused(hosted: HookedModel, tmp_path: Path) -> None:
    batch = hosted.tokenize(TEXTS)
    edits = {SITE: Add(torch.ones(hosted.d_model))}
    with pytest.raises(BackendError, match="read and not edited"), torch.no_grad():
        hosted.run(batch, reads=[SITE], edits=edits)
    with pytest.raises(BackendError, match="can only be read, not edited"), hosted.edited(edits):
        pass
    with pytest.raises(BackendError, match="not asked to generate"):
        hosted.generate(batch, 2)
    with pytest.raises(BackendError, match="not saved"):
        hosted.save_pretrained(tmp_path / "saved")
    with pytest.raises(BackendError, match="cannot change"):
        hosted.mark_changed()
    with pytest.raises(ConfigError, match="hosted elsewhere"):
        unlearn(hosted, Misdirection(1), DATA, QUICK, progress=False)
    with pytest.raises(ConfigError, match="hosted elsewhere"):
        parameters_by_role(hosted.hf, ["mlp.down"])
    assert not hosted.run(batch, reads=[SITE])[SITE].requires_grad
    assert not (tmp_path / "saved").exists()


def test_what_contradicts_hosting_is_refused(tmp_path: Path) -> None:
    contradictions: list[dict[str, Any]] = [
        {"backend": "torch"},
        {"dtype": torch.float16},
        {"first_blocks": 1},
        {"device": "cuda"},
    ]
    for options in contradictions:
        given: dict[str, Any] = {"backend": "nnsight", **options}
        with pytest.raises(ConfigError, match="remote needs the backend nnsight"):
            HookedModel.from_pretrained(tmp_path, **given, remote=True)
    with pytest.raises(CheckpointError):
        HookedModel.from_pretrained(tmp_path, "nnsight", remote=True)


def test_a_server_that_cannot_be_reached_is_said_in_a_line(tmp_path: Path) -> None:
    make_hf("llama").save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    hosted = HookedModel.from_pretrained(tmp_path, "nnsight", remote="http://127.0.0.1:9")
    with pytest.raises(BackendError, match=r"cannot be read: .*nnsight\.ndif\.status"), torch.no_grad():
        hosted.run(hosted.tokenize(TEXTS), reads=[SITE])
