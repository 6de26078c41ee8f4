"""Public data and a checkpoint that no one here made: through every backend, and through the command line."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from backend_matrix import BACKENDS, distance
from transformers import AutoModelForCausalLM

from interp_unlearn import Add, HookedModel, ProbeSet, Site
from interp_unlearn.activations import ActivationStore
from interp_unlearn.cli import main
from interp_unlearn.data import read_pairs, read_texts
from interp_unlearn.models import tokenize

pytestmark = pytest.mark.skipif("INTERP_UNLEARN_DATA" not in os.environ, reason="INTERP_UNLEARN_DATA is not set")

SHARED = Path(os.environ.get("INTERP_UNLEARN_DATA", "."))
MODEL = SHARED / "models" / "stories260K"
PARADETOX = SHARED / "data" / "paradetox" / "paradetox.tsv"
JIGSAW = {name: SHARED / "data" / "jigsaw" / f"test_10k_{name}.txt" for name in ("toxic", "normal")}
WIKITEXT = SHARED / "data" / "wikitext2" / "wiki.test.raw"
STORY = ["Once upon a time, there was a little girl named Lily.", "She loved to play"]


@torch.no_grad()
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_reads_and_edits_it_alike(backend: str) -> None:
    hf = AutoModelForCausalLM.from_pretrained(MODEL, attn_implementation="eager").eval()
    reference, model = (HookedModel.from_pretrained(MODEL, name) for name in ("torch", backend))
    for one in (reference, model):
        one.hf.set_attn_implementation("eager")
    batch = reference.tokenize(STORY, padding_side="left")
    plain = hf(input_ids=batch.input_ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids).logits
    assert distance(plain, model.run(batch).logits, batch.mask) <= 1e-5
    sites = [Site(layer, part) for layer in range(model.n_layers) for part in ("resid_mid", "z", "resid_post")]
    edits = {Site(1, "resid_mid"): Add(torch.linspace(-1, 1, model.d_model))}
    expected, found = (one.run(batch, sites, edits, logits=True) for one in (reference, model))
    for site in sites:
        assert distance(expected[site], found[site], batch.mask) <= (0.0 if backend == "nnsight" else 1e-5), site
    assert distance(plain, found.logits, batch.content_mask) > 0.1


def test_it_tells_its_story() -> None:
    model = HookedModel.from_pretrained(MODEL)
    tokens = model.generate(model.tokenize([STORY[0]]), 12)
    assert model.tokenizer.decode(tokens[0]).startswith("She loved to play outside")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["paradetox", "jigsaw", "wikitext"])
def test_collected_from_the_command_line(
    name: str, backend: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options, expected = {
        "paradetox": (
            ("--data", str(PARADETOX)),
            [t for p in read_pairs(PARADETOX)[:12] for t in (p.toxic, p.neutral[0])],
        ),
        "jigsaw": (
            ("--data", str(JIGSAW["toxic"]), "--neutral", str(JIGSAW["normal"]), "--layout", "texts"),
            [*read_texts(JIGSAW["toxic"])[:12], *read_texts(JIGSAW["normal"])[:12]],
        ),
        "wikitext": (("--data", str(WIKITEXT), "--layout", "texts"), read_texts(WIKITEXT)[:12]),
    }[name]
    sites = ("--site", "embed", "--site", "2.resid_post")
    common = ("collect", str(MODEL), *options, "--limit", "12", "--backend", backend, *sites)
    assert main([*common, "--out", str(tmp_path / "s"), "--dry-run"]) == 0
    assert not (tmp_path / "s").exists()
    assert f"{len(expected)} texts" in capfd.readouterr().out
    assert main([*common, "--out", str(tmp_path / "s")]) == 0
    store = ActivationStore.open(tmp_path / "s")
    assert store.texts == expected
    hf = AutoModelForCausalLM.from_pretrained(MODEL).eval()
    model = HookedModel.from_pretrained(MODEL)
    for row in (0, 5, len(expected) - 1):
        batch = tokenize(model.tokenizer, [expected[row]], max_length=512)
        with torch.no_grad():
            plain = hf(input_ids=batch.input_ids, output_hidden_states=True, use_cache=False).hidden_states[3][0, 1:]
        np.testing.assert_allclose(store.array(Site(2, "resid_post"))[row], plain.mean(0), atol=2e-4, rtol=1e-3)


def test_the_whole_way_on_paradetox(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, data = str(MODEL), ("--data", str(PARADETOX), "--limit", "150")
    store, probes, out, scores = (str(tmp_path / name) for name in ("store", "probes", "model", "scores"))
    assert main(["collect", model, *data, "--out", store]) == 0
    assert main(["probe", store, "--out", probes]) == 0
    table = ProbeSet.load(probes, HookedModel.from_pretrained(MODEL)).to_frame()
    assert table["n_groups"].tolist() == [150] * 6
    assert table["auroc"].between(0.5, 1).all() and table["auroc_bag_of_words"].iloc[0] > 0.6
    settings = ("--objective", "probe_multi", "--probes", probes, "--steps", "8", "--batch-size", "8")
    assert main(["unlearn", model, *data, "--out", out, *settings, "--max-length", "96"]) == 0
    evaluated = ("--against", model, "--skip", "150", "--probes", probes, "--out", scores, "--max-length", "96")
    assert main(["evaluate", out, *data, *evaluated]) == 0
    AutoModelForCausalLM.from_pretrained(out)
    found = pd.concat([pd.read_parquet(file) for file in (tmp_path / "scores").glob("*.parquet")])
    assert (
        len(found)
        and json.loads((tmp_path / "model" / "run.json").read_text())["identity"]["objective"] == "probe_multi"
    )
    printed = capfd.readouterr()
    words = {word for pair in read_pairs(PARADETOX)[:300] for word in pair.toxic.split() if len(word) > 9}
    assert not [word for word in words if word in printed.out + printed.err], "no text is printed"
