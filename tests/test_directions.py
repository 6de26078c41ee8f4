"""Directions from probes and from files: what is kept, and what is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_hf
from safetensors.torch import save_file
from torch import Tensor

from interp_unlearn.activations import ActivationStore
from interp_unlearn.directions import Directions, compare_directions, read_directions
from interp_unlearn.errors import ArtifactError, ConfigError, InterpError, SiteError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.probes import ProbeSet, fit_probes
from interp_unlearn.sites import Site

EARLY, LATE = Site(0, "resid_post"), Site(2, "resid_post")
D = 32


def vector(seed: int, *shape: int) -> Tensor:
    return torch.randn(*(shape or (D,)), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def probes() -> ProbeSet:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    vectors = {site: rng.normal(size=(60, D)) + np.outer(labels, rng.normal(size=D)) for site in (EARLY, LATE)}
    tensors = {site: torch.tensor(values, dtype=torch.float32) for site, values in vectors.items()}
    metadata = {"model": "planted", "model_hash": "a" * 64, "data_hash": "d", "pool": "mean"}
    store = ActivationStore(tensors, pd.DataFrame({"n_tokens": 3, "label": labels}), metadata)
    return fit_probes(store, folds=3, progress=False)


class TestDirections:
    def test_any_norm_becomes_unit_norm_and_the_border_stays_where_it_was(self) -> None:
        raw, h = 7 * vector(0), vector(1)
        directions = Directions({LATE: raw}, {LATE: -3.0})
        torch.testing.assert_close(directions[LATE].norm(), torch.tensor(1.0))
        on_border = h - (h @ raw - 3.0) / (raw @ raw) * raw
        assert float(on_border @ directions[LATE]) + directions.biases[LATE] == pytest.approx(0, abs=1e-5)
        assert abs(float(h @ directions[LATE]) + directions.biases[LATE]) > 1e-2

    @pytest.mark.parametrize("estimator", ["logistic", "mean_difference"])
    def test_of_probes(self, probes: ProbeSet, estimator: str) -> None:
        directions = Directions.of(probes, estimator)
        assert directions.sites == (EARLY, LATE)
        for site in directions.sites:
            torch.testing.assert_close(directions[site], probes.direction(site, estimator))
            assert directions.biases[site] == pytest.approx(probes.bias(site, estimator), rel=1e-4)
        assert directions.metadata["model_hash"] == "a" * 64 and directions.metadata["estimator"] == estimator
        assert not torch.allclose(Directions.of(probes)[LATE], Directions.of(probes, "mean_difference")[LATE])

    def test_sites_come_in_the_order_of_the_pass(self) -> None:
        directions = Directions({LATE: vector(0), Site.embed: vector(1), EARLY: vector(2)})
        assert directions.sites == (Site.embed, EARLY, LATE)
        part = directions.at([EARLY])
        assert part.sites == (EARLY,)
        torch.testing.assert_close(part[EARLY], directions[EARLY])
        with pytest.raises(
            SiteError, match=r"no direction at 1\.resid_post; there are directions at embed, 0\.resid_post"
        ):
            directions[Site(1, "resid_post")]

    @pytest.mark.parametrize(
        ("vectors", "biases", "message"),
        [
            ({}, {}, "no directions"),
            ({LATE: torch.zeros(D)}, {}, "the direction is zero"),
            ({LATE: torch.full((D,), float("nan"))}, {}, "infinite values or NaN"),
            ({LATE: torch.ones(2, D)}, {}, r"expected a direction \[width\], got \(2, 32\)"),
            ({"2.resid_post": torch.ones(D)}, {}, "keyed by Site"),
            ({LATE: torch.ones(D)}, {EARLY: 1.0}, "bias at 0.resid_post without a direction"),
        ],
    )
    def test_what_is_no_direction_is_refused(self, vectors: dict, biases: dict, message: str) -> None:
        with pytest.raises(InterpError, match=message):
            Directions(vectors, biases)

    def test_saved_and_loaded(self, probes: ProbeSet, tmp_path: Path) -> None:
        directions = Directions.of(probes)
        directions.save(tmp_path / "d.safetensors")
        for loaded in (Directions.load(tmp_path / "d.safetensors"), read_directions(tmp_path / "d.safetensors")):
            assert loaded.name == directions.name and loaded.metadata == directions.metadata
            assert loaded.biases == pytest.approx(directions.biases, rel=1e-5)
            for site in directions.sites:
                torch.testing.assert_close(loaded[site], directions[site])
        save_file({"2.resid_post": vector(0)}, tmp_path / "other.safetensors")
        with pytest.raises(ArtifactError, match="not written by"):
            Directions.load(tmp_path / "other.safetensors")

    def test_other_weights_and_other_widths_are_refused(self, llama: HookedModel, tmp_path: Path) -> None:
        mine = Directions({LATE: vector(0)}, metadata={"model_hash": llama.hash(), "model": "tiny-llama"})
        mine.save(tmp_path / "d.safetensors")
        read_directions(tmp_path / "d.safetensors", model=llama)
        other = HookedModel(make_hf("llama", seed=1), llama.tokenizer, name="other")
        with pytest.raises(ArtifactError, match="'direction' belongs to tiny-llama"):
            read_directions(tmp_path / "d.safetensors", model=other)
        mine.check_width(other)
        with pytest.raises(ConfigError, match=r"the direction at 2\.resid_post is 8 wide, but tiny-llama is 32 wide"):
            Directions({LATE: vector(0, 8)}).check_model(llama)
        with pytest.raises(SiteError, match="out of range"):
            Directions({Site(3, "resid_post"): vector(0)}).check_model(llama)


class TestFiles:
    def test_folder_of_probes(self, probes: ProbeSet, tmp_path: Path) -> None:
        probes.save(tmp_path / "probes")
        found = read_directions(tmp_path / "probes", LATE, estimator="mean_difference")
        assert found.sites == (LATE,)
        torch.testing.assert_close(found[LATE], probes.direction(LATE, "mean_difference"))

    def test_tensors_named_by_sites(self, tmp_path: Path) -> None:
        save_file({"2.resid_post": vector(0), "embed": vector(1)}, tmp_path / "steering.safetensors")
        found = read_directions(tmp_path / "steering.safetensors")
        assert found.sites == (Site.embed, LATE) and found.name == "steering" and not found.biases
        assert read_directions(tmp_path / "steering.safetensors", [LATE]).sites == (LATE,)

    def test_one_vector_is_put_at_every_site_and_a_row_a_site_at_its_own(self, tmp_path: Path) -> None:
        np.save(tmp_path / "refusal.npy", vector(0).numpy().astype("float16"))
        found = read_directions(tmp_path / "refusal.npy", [EARLY, LATE])
        torch.testing.assert_close(found[EARLY], found[LATE])
        assert float(found[LATE] @ vector(0) / vector(0).norm()) == pytest.approx(1, abs=1e-5)
        save_file({"refusal": vector(0, 2, D).bfloat16()}, tmp_path / "layers.safetensors")
        found = read_directions(tmp_path / "layers.safetensors", [EARLY, LATE])
        for site, row in zip((EARLY, LATE), vector(0, 2, D), strict=True):
            assert float(found[site] @ row / row.norm()) == pytest.approx(1, abs=1e-4)

    @pytest.mark.parametrize("transposed", [False, True])
    def test_a_row_of_a_decoder_whichever_way_it_lies(
        self, llama: HookedModel, tmp_path: Path, transposed: bool
    ) -> None:
        decoder = vector(0, 100, D)
        stored = decoder.T.contiguous() if transposed else decoder
        save_file({"W_dec": stored, "b_dec": vector(1)}, tmp_path / "sae.safetensors")
        path = f"{tmp_path / 'sae.safetensors'}#W_dec"
        found = read_directions(path, LATE, row=41, model=llama)
        torch.testing.assert_close(found[LATE], decoder[41] / decoder[41].norm())
        assert found.name == "sae[41]" and found.metadata["row"] == 41 and found.metadata["tensor"] == "W_dec"
        same = read_directions(tmp_path / "sae.safetensors", LATE, name="W_dec", row=41, model=llama)
        torch.testing.assert_close(same[LATE], found[LATE])

    def test_what_does_not_say_which_numbers_it_means_is_refused(self, llama: HookedModel, tmp_path: Path) -> None:
        file = tmp_path / "sae.safetensors"
        save_file({"square": vector(0, D, D), "flat": vector(0, 100, 8), "W_dec": vector(0, 100, D)}, file)

        def refused(error: type[InterpError], message: str, path: object = file, **options: object) -> None:
            with pytest.raises(error, match=message):
                read_directions(path, **options)

        refused(ConfigError, "holds 3 tensors: .*say which", sites=LATE)
        refused(ConfigError, "holds no tensor 'W_enc'; it holds W_dec", sites=LATE, name="W_enc")
        refused(SiteError, "does not say where it belongs; give its site", name="W_dec")
        refused(ConfigError, "both axes are 32 wide", sites=LATE, name="square", row=0, model=llama)
        refused(ConfigError, "no axis is 32 wide", sites=LATE, name="flat", row=0, model=llama)
        refused(ConfigError, "give the model, whose width", sites=LATE, name="W_dec", row=0)
        refused(ConfigError, "latents 0 to 99", sites=LATE, name="W_dec", row=100, model=llama)
        refused(ConfigError, r"has shape \(100, 32\); expected \[width\]", sites=LATE, name="W_dec")
        refused(ArtifactError, "no such file", tmp_path / "none.npy", sites=LATE)
        refused(ArtifactError, "no such file", tmp_path / "none.safetensors", sites=LATE)
        torch.save(vector(0), tmp_path / "direction.pt")
        refused(ArtifactError, "pickled files are not read", tmp_path / "direction.pt", sites=LATE)

    def test_nothing_is_unpickled(self, tmp_path: Path) -> None:
        np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
        with pytest.raises(ArtifactError, match="not a NumPy array of numbers"):
            read_directions(tmp_path / "objects.npy", LATE)


def test_a_probe_set_stands_for_its_logistic_directions(probes: ProbeSet) -> None:
    pd.testing.assert_frame_equal(compare_directions(probes), compare_directions(Directions.of(probes)))
