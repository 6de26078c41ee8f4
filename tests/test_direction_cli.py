"""The verb `directions` on a tiny checkpoint: tables and figures, no word that may offend, one line for errors."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import WORDS, make_hf, make_tokenizer
from safetensors.torch import save_file
from test_cli import refused, run

from interp_unlearn.data import Pair, write_pairs, write_texts
from interp_unlearn.directions import Directions
from interp_unlearn.probes import ProbeSet
from interp_unlearn.sites import Site

FIGURES = ("promoted_tokens", "value_vectors", "cosines", "subspace_rank", "transfer", "transfer_by_layer", "effect_kl")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workplace")
    make_hf("llama").save_pretrained(folder / "model")
    make_tokenizer().save_pretrained(folder / "model")
    beginnings = [f"the {noun} {verb} on {det}" for noun in WORDS[1:3] for verb in WORDS[3:5] for det in WORDS[6:10]]
    write_pairs(folder / "pairs.tsv", [Pair(f"{start} blue small hill", (f"{start} mat red",)) for start in beginnings])
    write_texts(folder / "prompts.txt", [f"{start} blue" for start in beginnings])
    run("collect", folder / "model", "--data", folder / "pairs.tsv", "--out", folder / "store")
    run("probe", folder / "store", "--out", folder / "probes", "--folds", 3)
    drawn = torch.randn(40, 32, generator=torch.Generator().manual_seed(0))
    save_file({"W_dec": drawn, "refusal": drawn[0].clone()}, folder / "mine.safetensors")
    return folder


def command(workplace: Path, out: Path, *more: object) -> tuple[object, ...]:
    return ("directions", workplace / "probes", "--model", workplace / "model", "--out", out, *more)


@pytest.fixture(scope="module")
def results(workplace: Path) -> Path:
    probes, store = workplace / "probes", workplace / "store"
    analyses = ("--store", store, "--category", f"one={probes}", "--category", f"two={probes}")
    analyses += ("--train", f"own={probes}", "--test", f"own={store}", "--k", 3)
    effects = ("--data", workplace / "prompts.txt", "--layout", "texts", "--limit", 6, "--random", 1, "--token", "hill")
    sites = ("--site", "1.resid_post", "--site", "2.resid_post", "--layers", "all")
    run(*command(workplace, workplace / "directions", *analyses, *effects, *sites))
    return workplace / "directions"


def test_every_table_is_written_and_drawn(workplace: Path, results: Path):
    for name in ("promoted_tokens", "value_vectors", "cosines", "subspace_rank", "transfer", "causal_effects"):
        assert len(pd.read_parquet(results / f"{name}.parquet")), name
    for name in (*FIGURES, "effect_token_set_log_probability"):
        assert (results / f"{name}.pdf").is_file() and (results / f"{name}.png").is_file(), name
    found, probes = Directions.load(results / "directions.safetensors"), ProbeSet.load(workplace / "probes")
    torch.testing.assert_close(found[Site(1, "resid_post")], probes.direction(Site(1, "resid_post")))
    effects = pd.read_parquet(results / "causal_effects.parquet")
    assert set(effects["unit"]) == {"gap", "overshoot", ""} and (effects["n"] == 6).all()
    rank = pd.read_parquet(results / "subspace_rank.parquet")
    assert rank["effective_rank"].tolist() == pytest.approx([1.0] * len(rank))
    assert "whitened_cosine" in pd.read_parquet(results / "cosines.parquet")


def test_figures_are_drawn_again_from_the_tables(workplace: Path, tmp_path: Path):
    out = tmp_path / "out"
    run(*command(workplace, out, "--site", "2.resid_post", "--k", 2))
    before = {path.name: path.read_bytes() for path in out.glob("*.pdf")}
    assert set(before) == {"promoted_tokens.pdf", "value_vectors.pdf"}
    for name in before:
        (out / name).unlink()
    run("figures", out)
    assert {path.name: path.read_bytes() for path in out.glob("*.pdf")} == before


def test_tokens_are_shown_only_when_asked_for(workplace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    run(*command(workplace, tmp_path / "quiet", "--site", "2.resid_post"))
    quiet = capfd.readouterr().out
    assert not set(WORDS) & set(quiet.split())
    assert "token" not in pd.read_parquet(tmp_path / "quiet" / "promoted_tokens.parquet")
    run(*command(workplace, tmp_path / "loud", "--site", "2.resid_post", "--show-tokens"))
    table = pd.read_parquet(tmp_path / "loud" / "promoted_tokens.parquet")
    shown = capfd.readouterr().out
    assert set(table["token"].str.strip()) & set(WORDS) <= set(shown.split())
    assert set(WORDS) & set(shown.split())


def test_directions_brought_by_the_user(workplace: Path, tmp_path: Path):
    file, model = workplace / "mine.safetensors", workplace / "model"
    at = ("--model", model, "--site", "1.resid_post")
    run("directions", f"{file}#refusal", *at, "--out", tmp_path / "refusal")
    run("directions", f"{file}#W_dec", *at, "--row", 0, "--out", tmp_path / "latent")
    for name in ("promoted_tokens", "value_vectors"):
        tables = [pd.read_parquet(tmp_path / kind / f"{name}.parquet") for kind in ("refusal", "latent")]
        pd.testing.assert_frame_equal(*tables)
    assert not (tmp_path / "latent" / "cosines.parquet").exists()  # of one site


def test_wrong_input_gets_one_line(workplace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    file, model = workplace / "mine.safetensors", ("--model", workplace / "model", "--out", tmp_path / "out")
    cases = {
        ("directions", file, *model, "--site", "1.resid_post"): "holds 2 tensors",
        ("directions", f"{file}#refusal", *model): "give its site",
        ("directions", f"{file}#W_dec", *model, "--site", "1.resid_post", "--row", 40): "latents 0 to 39",
        ("directions", f"{file}#refusal", *model, "--site", "7.resid_post"): "layer out of range",
        ("directions", tmp_path / "none.npy", *model, "--site", "1.resid_post"): "no such file",
        command(workplace, tmp_path / "out", "--category", "unnamed"): "--category: expected NAME=PATH",
        command(workplace, tmp_path / "out", "--train", f"a={workplace / 'probes'}"): "needs both --train",
        command(workplace, tmp_path / "out", "--k", 999): "k: expected 1 to",
        command(workplace, tmp_path / "out", "--store", tmp_path): "no activation store",
        command(workplace, tmp_path / "out", "--data", tmp_path / "none"): "no such file",
    }
    for arguments, expected in cases.items():
        assert expected in refused(capfd, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_probes_of_another_model_are_refused(workplace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    make_hf("llama", seed=1).save_pretrained(tmp_path / "other")
    make_tokenizer().save_pretrained(tmp_path / "other")
    line = refused(capfd, "directions", workplace / "probes", "--model", tmp_path / "other", "--out", tmp_path / "out")
    assert "belongs to" in line and "make it again from this model" in line
