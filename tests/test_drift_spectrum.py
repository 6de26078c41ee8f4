"""Spectra of displacements: planted ranks and directions, a plain SVD, and displacements without any direction."""

from typing import Any

import numpy as np
import pytest
import torch
from conftest import TEXTS
from scipy.stats import entropy
from test_drift_paired import EARLY, LATE, gaussian, token_store
from torch import Tensor

from interp_unlearn.activations import ActivationStore, collect
from interp_unlearn.drift import displacement_spectrum, paired, position_classes, spectrum_by_position
from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.models import parameters_by_role
from interp_unlearn.sites import Site

N, D = 600, 20


def moved(displacement: Tensor, **columns: Any) -> tuple[ActivationStore, ActivationStore]:
    """Stores whose vectors differ by a displacement at LATE and by nothing at EARLY."""
    h0 = gaussian(0, *displacement.shape) + 3
    return tuple(token_store({EARLY: h0, LATE: h}, **columns) for h in (h0, h0 + displacement))  # pyright: ignore[reportReturnType]


def row_of(table: Any, site: Site = LATE) -> Any:
    return table.set_index("site").loc[str(site)]


def test_a_displacement_along_one_direction_is_found() -> None:
    direction = torch.nn.functional.normalize(gaussian(1, D), dim=0)
    distances = gaussian(2, N) - 0.5  # on average against the direction
    original, changed = moved(torch.outer(distances, direction))
    found = displacement_spectrum(original, changed, corpus="forget", n_null=2)
    row = row_of(found.table)
    assert row["share"] == pytest.approx(1) and row["effective_rank"] == pytest.approx(1, abs=1e-6)
    assert (row["corpus"], row["n_tokens"], row["d"]) == ("forget", N, D)
    expected = (distances.abs() / original[LATE].norm(dim=1)).mean()
    assert row["relative_displacement"] == pytest.approx(float(expected))
    torch.testing.assert_close(found.to_directions()[LATE], -direction.float(), atol=1e-5, rtol=1e-4)
    assert found.to_subspaces(3)[LATE].shape == (D, 1), "nothing moved along other directions"


def test_where_nothing_moved_there_is_no_direction() -> None:
    found = displacement_spectrum(*moved(gaussian(1, N, D)), n_null=1)
    row = row_of(found.table, EARLY)
    assert row["relative_displacement"] == 0.0
    assert row[["share", "effective_rank", "null_share"]].isna().all()
    assert found.to_directions().sites == (LATE,)
    same = displacement_spectrum(*moved(torch.zeros(N, D).double()), n_null=0)
    with pytest.raises(ConfigError, match="no directions"):
        same.to_directions()


@pytest.mark.parametrize("at_once", [64, 100_000])
def test_streamed_as_a_plain_svd(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired, "TOKENS_AT_ONCE", at_once)
    displacement = gaussian(1, N, D) * torch.linspace(0.1, 2, D) + 0.3
    found = displacement_spectrum(*moved(displacement), n_directions=3, n_null=0)
    _, values, rows = np.linalg.svd(displacement.numpy(), full_matrices=False)
    row = row_of(found.table)
    assert row["share"] == pytest.approx(values[0] ** 2 / (values**2).sum())
    assert row["effective_rank"] == pytest.approx(np.exp(entropy(values**2)))
    cosines = (found.directions[LATE].double().numpy() * rows[:3]).sum(1)
    assert np.abs(cosines) == pytest.approx(np.ones(3), abs=1e-6)
    assert np.isnan(row["null_share"])


def test_displacements_without_a_direction_are_as_the_null() -> None:
    directions = torch.nn.functional.normalize(gaussian(1, N, D), dim=1)
    norms = gaussian(2, N).exp()
    row = row_of(displacement_spectrum(*moved(directions * norms[:, None]), n_null=50).table)
    assert row["share"] == pytest.approx(row["null_share"], rel=0.25)
    assert row["effective_rank"] == pytest.approx(row["null_effective_rank"], rel=0.1)
    assert row["share"] < row["null_share_high"] * 1.2
    common = row_of(displacement_spectrum(*moved(directions * norms[:, None] + 0.5), n_null=50).table)
    assert common["share"] > 2 * common["null_share_high"]
    assert common["effective_rank"] < 0.8 * common["null_effective_rank_low"]


def test_a_weight_change_of_rank_one_moves_its_layer_along_one_direction(model: HookedModel) -> None:
    sites = [Site(layer, "resid_post") for layer in range(3)]
    original = collect(model, TEXTS, sites, "none", progress=False)
    ((name, weight),) = parameters_by_role(model.hf, ["mlp.down"], [1]).items()
    written, read = gaussian(1, 32).float(), gaussian(2, 48).float()
    transposed = "c_proj" in name
    with torch.no_grad():
        weight.add_(0.5 * torch.outer(*((read, written) if transposed else (written, read))))
    changed = collect(model, TEXTS, sites, "none", progress=False)
    found = displacement_spectrum(original, changed, n_null=0)
    assert found.table["relative_displacement"].tolist()[0] == 0.0
    if not model.architecture.post_norms:  # a norm after the MLP turns each token's displacement its own way
        assert found.table["share"].iloc[1] == pytest.approx(1, abs=1e-5)
        assert float(found.to_directions()[sites[1]] @ written / written.norm()) ** 2 == pytest.approx(1, abs=1e-5)
        assert found.table["share"].tolist()[2] < 0.999
    assert found.metadata["original_hash"] != found.metadata["changed_hash"] == model.hash()


class TestPositions:
    TEXTS = ("the small cat sat on a hill", "a big dog ran and the big dog sat", "it was not the mat")
    SUBJECTS = ("small cat", "big dog", "mat")

    def test_classes_of_tokens(self, llama: HookedModel) -> None:
        store = collect(llama, self.TEXTS, [EARLY], "none", progress=False)
        classes = position_classes(store, llama.tokenizer, ["small cat", "big dog", "not the"])
        other, subject, last = "other", "subject", "last"
        assert classes[:7] == [other, subject, subject, other, other, other, last]
        assert classes[7:16] == [other, subject, subject, other, other, other, subject, subject, last]
        assert classes[16:] == [other, other, subject, subject, last]
        with pytest.raises(DataError, match="row 2: its subject 'small cat' does not occur"):
            position_classes(store, llama.tokenizer, ["small cat", "big dog", "small cat"])
        with pytest.raises(ConfigError, match="one a text"):
            position_classes(store, llama.tokenizer, ["small cat"])
        with pytest.raises(DataError, match="the tokens of text 1 are not those of the store"):
            position_classes(store, llama.tokenizer, self.SUBJECTS, [self.TEXTS[0], "the big dog", self.TEXTS[2]])
        with_bos = collect(llama, self.TEXTS, [EARLY], "none", include_bos=True, keep_texts=False, progress=False)
        with pytest.raises(ConfigError, match="keeps no texts"):
            position_classes(with_bos, llama.tokenizer, self.SUBJECTS)
        again = position_classes(with_bos, llama.tokenizer, ["small cat", "big dog", "not the"], self.TEXTS)
        assert again == [other, *classes[:7], other, *classes[7:16], other, *classes[16:]]

    def test_a_displacement_of_subjects_alone(self) -> None:
        classes = np.array(["subject", "other", "last", "other"] * (N // 4))
        subjects = torch.from_numpy(classes == "subject").double()[:, None]
        displacement = subjects * torch.outer(torch.ones(N).double(), gaussian(1, D)) + 0.01 * gaussian(2, N, D)
        table = spectrum_by_position(*moved(displacement), classes.tolist(), n_null=2).query("site == '2.resid_post'")
        shares: Any = table.set_index("position")["share"]
        assert shares["subject"] > 0.99 and shares["other"] < 0.3 and shares["last"] < 0.3
        assert table.set_index("position")["n_tokens"].to_dict() == {"subject": 150, "other": 300, "last": 150}


def test_settings_that_make_no_sense_are_refused() -> None:
    stores = moved(gaussian(1, N, D))
    with pytest.raises(ConfigError, match="n_directions"):
        displacement_spectrum(*stores, n_directions=0)
    with pytest.raises(DataError, match="none count"):
        displacement_spectrum(*stores, keep=np.zeros(N, dtype=bool))
