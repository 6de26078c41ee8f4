"""Bad input, activation stores and probes: what is missing, damaged or of another model is refused by name."""

import json
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from conftest import TEXTS, make_hf, make_tokenizer
from damaged_files import Act, changed, cut, other_table, removing, replacing, resaved

from interp_unlearn import ActivationStore, HookedModel, ProbeSet, Site, collect, fit_probes
from interp_unlearn.errors import ArtifactError, ConfigError, SiteError

SHARD, ROWS = "store/rows-000000000.safetensors", "store/rows.parquet"
VECTORS, TABLE = "probes/probes.safetensors", "probes/table.parquet"
PLACES = (Site(0, "resid_post"), Site(1, "resid_post"))


def model(seed: int = 0) -> HookedModel:
    return HookedModel(make_hf("llama", seed), make_tokenizer(), name="tiny-llama")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, and the probes fitted on it."""
    folder = tmp_path_factory.mktemp("made")
    store = collect(model(), TEXTS * 4, PLACES, labels=[0, 1] * 8, out=folder / "store", progress=False)
    fit_probes(store, folds=2, bootstrap=0, progress=False).save(folder / "probes")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "made"))


def store(folder: Path) -> ActivationStore:
    """The store, every vector of it read."""
    found = ActivationStore.open(folder / "store")
    for site in found.sites:
        found.array(site)
    return found


def probes(folder: Path) -> ProbeSet:
    return ProbeSet.load(folder / "probes")


def index(**change: object) -> Act:
    return changed("store/index.json", store, **change)


def described(**change: object) -> Act:
    return changed("probes/probes.json", probes, **change)


STORES: dict[str, tuple[Act, str]] = {
    "none": (
        ActivationStore.open,
        r"no activation store there \(index\.json is missing\); expected what collect wrote",
    ),
    "another format": (index(format=1), r"format 1, expected 2; collect the store again"),
    "no sites": (index(sites=...), r"sites: expected list, got nothing; write the artifact again"),
    "sites of numbers": (
        index(sites=[3]),
        r"index\.json: cannot read '3' as a site; expected for example 5\.resid_post",
    ),
    "a site twice": (index(sites=["embed", "embed"]), r"expected sites, each once, got \['embed', 'embed'\]; write"),
    "rows in words": (index(n_rows="many"), r"n_rows: expected int, got str; write the artifact again"),
    "other rows": (index(n_rows=3), r"16 rows in the table, 3 in the index; collect again"),
    "starts that are paths": (
        index(shard_starts=["../x"]),
        r"expected shard_starts that count up from 0, got \['\.\./x'\]",
    ),
    "no starts": (index(shard_starts=[]), r"expected shard_starts that count up from 0, got \[\]; collect the store"),
    "a start twice": (index(shard_starts=[0, 0]), r"expected shard_starts that count up from 0, got \[0, 0\]; collect"),
    "a shard too many": (index(shard_starts=[0, 8]), r"unfinished \(1 of 2 shards\); run the same collection again"),
    "metadata is a list": (index(metadata=[]), r"metadata: expected dict, got list; write the artifact again"),
    "no hash": (index(metadata={}), r"metadata has no data_hash, model_hash, pool; collect the store again"),
    "index is a list": (replacing("store/index.json", "[]", store), r"expected a JSON object, got list; write the art"),
    "index is no JSON": (
        replacing("store/index.json", "{", store),
        r"index\.json:1: not valid JSON: .*; write the art",
    ),
    "index nested": (replacing("store/index.json", "[" * 10**5, store), r"not valid JSON: maximum recursion depth"),
    "a missing shard": (
        removing(SHARD, store),
        r"unfinished \(0 of 1 shards\); run the same collection again to finish",
    ),
    "a cut shard": (cut(SHARD, store), r"cannot read 0\.resid_post: .*not fully covered; collect the store again"),
    "fewer rows": (resaved(SHARD, store, lambda t: t[:5]), r"is \(5, 32\) of torch\.float32, expected 16 rows of vec"),
    "other numbers": (resaved(SHARD, store, lambda t: t.byte()), r"0\.resid_post is of type U8, expected F64"),
    "ids for vectors": (
        resaved(SHARD, store, lambda t: t.int()),
        r"of torch\.int32, expected 16 rows of vectors; coll",
    ),
    "rows are no table": (
        replacing(ROWS, b"PAR1", store),
        r"rows\.parquet: not a Parquet file: .*; write the artifact",
    ),
    "another table": (other_table(ROWS, store, 16), r"rows\.parquet: has no column n_tokens; collect the store again"),
    "another model's": (lambda f: store(f).check_model(model(1)), r"belongs to tiny-llama with hash .*; make it again"),
    "another site": (
        lambda f: store(f)[Site.embed],
        r"embed is not in the store; it holds 0\.resid_post, 1\.resid_post",
    ),
    "another row": (lambda f: store(f).read(PLACES[0], [16]), r"rows: expected indices from 0 to 15, got 16 to 16"),
    "no row": (lambda f: store(f).select([]), r"rows: nothing is selected"),
    "tokens of a pooled one": (lambda f: store(f).token_frame(), r"one vector per text; collect with pool='none'"),
}
PROBES: dict[str, tuple[Act, str]] = {
    "none": (removing("probes/probes.json", probes), r"no such file; expected an artifact written by an earlier step"),
    "no vectors": (removing(VECTORS, probes), r"probes\.safetensors: no such file; expected an artifact written by"),
    "no table": (removing(TABLE, probes), r"table\.parquet: no such file; expected an artifact written by"),
    "cut vectors": (cut(VECTORS, probes), r"not a safetensors file: .*; write the artifact again"),
    "cut table": (cut(TABLE, probes), r"not a Parquet file: .*; write the artifact again"),
    "no site": (
        described(sites=["last"]),
        r"probes\.json: cannot read 'last' as a site; expected for example 5\.resid",
    ),
    "fewer sites": (described(sites=["embed"]), r"probes\.json and table\.parquet do not belong together; fit again"),
    "widths in words": (described(widths=["a", "b"]), r"do not belong together; fit again"),
    "negative widths": (described(widths=[-1, 65]), r"do not belong together; fit again"),
    "no metadata": (described(metadata=...), r"metadata: expected dict, got nothing; write the artifact again"),
    "no pool": (described(metadata={"model_hash": ""}), r"metadata has no include_bos, pool; fit the probes again"),
    "NaN": (
        resaved(VECTORS, probes, lambda t: t * np.nan),
        r"biases hold infinite values or NaN; fit the probes again",
    ),
    "another table": (other_table(TABLE, probes, 2), r"table\.parquet: has no column auroc; fit the probes again"),
    "another model's": (
        lambda f: ProbeSet.load(f / "probes", model(1)),
        r"the probe set belongs to tiny-llama with hash",
    ),
    "another site": (
        lambda f: probes(f).direction(Site.embed),
        r"no probe at embed; there are probes at 0\.resid_post",
    ),
    "another estimator": (
        lambda f: probes(f).bias(PLACES[0], cast(Any, "lda")),
        r"expected logistic or mean_difference, got 'lda'",
    ),
}
CASES = {f"store: {name}": case for name, case in STORES.items()} | {f"probes: {n}": c for n, c in PROBES.items()}
OTHERS: dict[str, type[Exception]] = {
    **dict.fromkeys(["store: another site", "probes: another site"], SiteError),
    **dict.fromkeys(["store: another row", "store: no row", "store: tokens of a pooled one"], ConfigError),
    "probes: another estimator": ConfigError,
}


@pytest.mark.parametrize("case", list(CASES))
def test_bad_results_are_refused_with_one_clear_line(case: str, folder: Path) -> None:
    act, message = CASES[case]
    with pytest.raises(OTHERS.get(case, ArtifactError), match=message) as raised:
        act(folder)
    assert len(str(raised.value).splitlines()) == 1


def test_what_was_made_is_read(folder: Path) -> None:
    assert store(folder).sites == probes(folder).sites == PLACES


def test_an_index_leads_to_no_file_outside_of_its_folder(folder: Path) -> None:
    """Files are named by the numbers of rows, which are all that the index can say."""
    shutil.copy(folder / SHARD, folder.parent / "outside.safetensors")
    (folder / SHARD).unlink()
    path = folder / "store" / "index.json"
    for start in ("../../outside", str(folder.parent / "outside"), 0.0, None, True, -1):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"shard_starts": [start]}))
        with pytest.raises(ArtifactError, match=r"count up from 0|unfinished"):
            store(folder)
