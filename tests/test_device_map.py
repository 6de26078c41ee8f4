"""A model of which accelerate keeps parts on disk is read and edited like one that is all in memory."""

from functools import cache
from pathlib import Path

import pytest
import torch
from conftest import TEXTS, make_hf, make_tokenizer
from explicit_forward import every_site

from interp_unlearn import Add, HookedModel, Scale, Site
from interp_unlearn.errors import BackendError, CheckpointError
from interp_unlearn.interventions.selections import Where

IN_MEMORY = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
MAPS = {
    "blocks on disk": {**IN_MEMORY, "model.layers.0": "cpu", "model.layers.1": "disk", "model.layers.2": "disk"},
    "embedding on disk": {**IN_MEMORY, "model.embed_tokens": "disk", "model.layers": "cpu"},
    "head on disk": {**IN_MEMORY, "lm_head": "disk", "model.layers": "disk"},
    "auto": "auto",
}
EDITS = {
    Site.embed: Scale(1.5),
    Site(1, "z"): Scale(-2.0, tokens="last", heads=[0, 2]),
    Site(1, "resid_mid"): Add(torch.linspace(-1, 2, 32), tokens=Where(torch.linspace(-1, 2, 32), 0.0)),
    Site(2, "mlp_post"): Scale(0.5),
    Site.logits: Scale(3.0),
}

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spread")
    make_hf("llama").save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return path


@cache
def whole(checkpoint: Path, backend: str) -> HookedModel:
    return HookedModel.from_pretrained(checkpoint, backend)


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        *((name, "torch") for name in MAPS),
        *((name, "nnsight") for name in MAPS if name != "embedding on disk"),
        ("blocks on disk", "transformer_lens"),
    ],
)
def test_reads_edits_and_generation_are_the_same(checkpoint: Path, name: str, backend: str) -> None:
    spread, reference = (
        HookedModel.from_pretrained(checkpoint, backend, device_map=MAPS[name]),
        whole(checkpoint, backend),
    )
    assert any(p.is_meta for p in spread.hf.parameters()) == (name != "auto")
    batch = spread.tokenize(TEXTS, padding_side="left")
    assert spread.device.type == batch.device.type == "cpu"
    for edits in ({}, EDITS):
        found, expected = (model.run(batch, every_site("llama"), edits) for model in (spread, reference))
        assert found.sites == expected.sites
        for site in found.sites:
            assert torch.equal(found[site], expected[site]), site
        with spread.edited(edits), reference.edited(edits):
            plain, wanted = (
                model.hf(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
                for model in (spread, reference)
            )
            assert torch.equal(plain, wanted)
            assert torch.equal(spread.generate(batch, 3), reference.generate(batch, 3))


def test_early_exit_leaves_nothing_in_memory(checkpoint: Path) -> None:
    """The pass ends between loading a block and putting it back."""
    spread = HookedModel.from_pretrained(checkpoint, device_map=MAPS["blocks on disk"])
    on_disk = {name for name, parameter in spread.hf.named_parameters() if parameter.is_meta}
    batch = spread.tokenize(TEXTS)
    for component in ("resid_pre", "z", "attn_out", "resid_mid", "mlp_post", "mlp_out", "resid_post"):
        site = Site(1, component)
        found = spread.run(batch, [site])[site]
        assert torch.equal(found, whole(checkpoint, "torch").run(batch, [site])[site])
    assert {name for name, parameter in spread.hf.named_parameters() if parameter.is_meta} == on_disk
    assert torch.equal(spread.run(batch).logits, whole(checkpoint, "torch").run(batch).logits)


def test_weights_on_disk_are_not_hashed_but_saved(checkpoint: Path, tmp_path: Path) -> None:
    spread = HookedModel.from_pretrained(checkpoint, device_map=MAPS["blocks on disk"])
    with pytest.raises(CheckpointError, match="cannot be hashed; load without it"):
        spread.hash()
    spread.save_pretrained(tmp_path)
    assert HookedModel.from_pretrained(tmp_path).hash() == whole(checkpoint, "torch").hash()
    assert HookedModel.from_pretrained(checkpoint, device_map="auto").hash() == whole(checkpoint, "torch").hash()


def test_nnsight_refuses_an_embedding_on_disk(checkpoint: Path) -> None:
    with pytest.raises(BackendError, match="keep the embedding on one, or use backend 'torch'"):
        HookedModel.from_pretrained(checkpoint, "nnsight", device_map=MAPS["embedding on disk"])


def test_a_map_that_makes_no_sense_is_refused(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        HookedModel.from_pretrained(checkpoint, device_map="everywhere")
