"""Two stores of the same tokens: what is refused, what is read of them. Other tests take `token_store` from here."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TEXTS
from torch import Tensor

from interp_unlearn.activations import ActivationStore, collect
from interp_unlearn.drift import check_paired, paired
from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.sites import Site

EARLY, LATE = Site(0, "resid_post"), Site(2, "resid_post")
LENGTHS = (3, 1, 5, 2, 4)


def token_store(
    vectors: Mapping[Site, Tensor], lengths: Sequence[int] | None = None, **columns: Any
) -> ActivationStore:
    """A token-level store of given vectors, in texts of ten tokens unless lengths are given."""
    n = len(next(iter(vectors.values())))
    counts = [10] * (n // 10) if lengths is None else list(lengths)
    metadata = {"model": "planted", "model_hash": "a" * 64, "data_hash": "d", "pool": "none"}
    ids = torch.arange(n, dtype=torch.int32) % 7
    return ActivationStore(dict(vectors), pd.DataFrame({"n_tokens": counts, **columns}), metadata, ids)


def gaussian(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def small(**columns: Any) -> ActivationStore:
    return token_store({LATE: gaussian(1, 15, 4), EARLY: gaussian(0, 15, 4)}, LENGTHS, **columns)


def test_stores_that_fit_give_their_sites_in_the_order_of_the_pass() -> None:
    assert check_paired(small(text=list("abcde")), small()) == (EARLY, LATE)


def test_stores_of_two_models_of_the_same_texts_fit(model: HookedModel) -> None:
    stores = [collect(model, TEXTS, [EARLY, LATE], "none", batch_tokens=size, progress=False) for size in (4096, 9)]
    assert check_paired(*stores) == (EARLY, LATE)


def test_what_does_not_fit_is_refused_by_name(llama: HookedModel) -> None:
    pooled = collect(llama, TEXTS, [EARLY], progress=False)
    with pytest.raises(ConfigError, match=r"original: .*pool='none'"):
        check_paired(pooled, pooled)
    with pytest.raises(ConfigError, match=r"different sites: 0\.resid_post"):
        check_paired(small(), token_store({LATE: gaussian(1, 15, 4)}, LENGTHS))
    with pytest.raises(DataError, match="text 3 is another one"):
        check_paired(small(text=list("abcde")), small(text=list("abcxe")))
    with pytest.raises(DataError, match="4 texts there, 5"):
        check_paired(small(), token_store({EARLY: gaussian(0, 15, 4), LATE: gaussian(1, 15, 4)}, (3, 1, 5, 6)))
    with pytest.raises(DataError, match="text 1 has 2 tokens there, 1"):
        check_paired(small(), token_store({EARLY: gaussian(0, 15, 4), LATE: gaussian(1, 15, 4)}, (3, 2, 4, 2, 4)))
    other = small()
    assert other.token_ids is not None
    other.token_ids[[5, 14]] = 99
    with pytest.raises(DataError, match="tokens of text 2 have other ids"):  # the first that differs, as above
        check_paired(small(), other)
    with pytest.raises(DataError, match="text 1 has 2 tokens there, 1"):
        check_paired(small(), token_store({EARLY: gaussian(0, 15, 4), LATE: gaussian(1, 15, 4)}, (3, 2, 4, 3, 3)))
    with pytest.raises(DataError, match="text 1 is another one"):
        check_paired(small(text=list("abcde")), small(text=list("axcxe")))
    with pytest.raises(ConfigError, match=r"2\.resid_post: 4 wide in the original's store, 6"):
        check_paired(small(), token_store({EARLY: gaussian(0, 15, 4), LATE: gaussian(1, 15, 6)}, LENGTHS))


@pytest.mark.parametrize(("n", "end"), [(6, ""), (7, ", ...")])
def test_sites_that_only_one_store_has_are_named_up_to_six(n: int, end: str) -> None:
    only_here = [Site(2 + layer, "resid_post") for layer in range(n)]
    one, other = (
        token_store({site: gaussian(0, 15, 4) for site in (EARLY, *more)}, LENGTHS) for more in (only_here, ())
    )
    named = ", ".join(map(str, only_here[:6])) + end
    with pytest.raises(ConfigError, match=re.escape(f"different sites: {named} only in one")):
        check_paired(one, other)


@pytest.mark.parametrize("at_once", [1, 4, 100])
def test_chunks_end_between_texts_and_hold_every_token_once(
    at_once: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(paired, "TOKENS_AT_ONCE", at_once)
    store = small()
    store.save(tmp_path / "store")
    keep = np.arange(15) % 3 != 0
    for one in (store, ActivationStore.open(tmp_path / "store")):
        chunks = list(paired.token_chunks(one, LATE))
        torch.testing.assert_close(torch.cat(chunks), store[LATE])
        sizes = [len(chunk) for chunk in chunks]
        assert sizes == {1: [3, 1, 5, 2, 4], 4: [4, 5, 2, 4], 100: [15]}[at_once]
        kept = torch.cat(list(paired.token_chunks(one, LATE, keep)))
        torch.testing.assert_close(kept, store[LATE][torch.from_numpy(keep)])
    with pytest.raises(ConfigError, match="each of 15 tokens"):
        list(paired.token_chunks(store, LATE, keep[1:]))
