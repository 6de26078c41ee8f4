"""Scores of single tokens against brute force, and the figure that draws them."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TEXTS, make_hf, make_tokenizer
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from transformers import PreTrainedTokenizerFast

from interp_unlearn.activations import ActivationStore, collect
from interp_unlearn.cli import main
from interp_unlearn.data import Pair, write_pairs
from interp_unlearn.errors import ArtifactError, ConfigError, SiteError
from interp_unlearn.figures import draw_token_heatmap, save_figure
from interp_unlearn.figures.token_layout import lay_out
from interp_unlearn.interventions import HookedModel
from interp_unlearn.organism.shipped import twin_path
from interp_unlearn.probes import ProbeSet, fit_probes, score_tokens
from interp_unlearn.sites import Site

EARLY, LATE = Site.embed, Site(3, "resid_post")
COUNTS = [3, 1, 4]
D = 6


def random_probes() -> ProbeSet:
    rng = np.random.default_rng(1)
    directions, others = (torch.tensor(rng.normal(size=(2, D)), dtype=torch.float32) for _ in range(2))
    biases = torch.tensor([0.5, -2.0])
    return ProbeSet((EARLY, LATE), directions, biases, biases, others, -biases, pd.DataFrame(), {})


@pytest.fixture
def store() -> ActivationStore:
    """Three texts whose tokens have random vectors."""
    rng = np.random.default_rng(0)
    vectors = {site: torch.tensor(rng.normal(size=(sum(COUNTS), D)), dtype=torch.bfloat16) for site in (EARLY, LATE)}
    ids = torch.tensor([4, 5, 6, 4, 7, 8, 9, 10])
    return ActivationStore(vectors, pd.DataFrame({"n_tokens": COUNTS}), {"pool": "none"}, ids)


def test_every_token_gets_its_distance_from_the_border(store: ActivationStore) -> None:
    probes = random_probes()
    frame = score_tokens(probes, store, make_tokenizer())
    assert list(frame.columns) == ["row", "place", "token", "site", "layer", "score"]
    assert frame["row"].tolist() == [0, 0, 0, 1, 2, 2, 2, 2] * 2
    assert frame["place"].tolist() == [0, 1, 2, 0, 0, 1, 2, 3] * 2
    assert frame["token"].tolist() == [" the", " cat", " dog", " the", " sat", " ran", " on", " a"] * 2
    assert frame["site"].tolist() == ["embed"] * 8 + ["3.resid_post"] * 8
    assert frame["layer"].isna().tolist() == [True] * 8 + [False] * 8
    for line, (index, row) in zip(frame.to_dict("records"), np.ndindex(2, 8), strict=True):
        site = (EARLY, LATE)[index]
        expected = sum(float(a) * float(b) for a, b in zip(store[site][row], probes.directions[index], strict=True))
        assert line["score"] == pytest.approx(expected + float(probes.biases[index]), abs=1e-5)


def test_chosen_rows_sites_and_estimator(store: ActivationStore) -> None:
    probes, tokenizer = random_probes(), make_tokenizer()
    frame = score_tokens(probes, store, tokenizer, LATE, [2, 0], "mean_difference")
    assert frame["row"].tolist() == [2, 2, 2, 2, 0, 0, 0]
    expected = store[LATE].float() @ probes.mean_differences[1] + 2
    assert frame["score"].tolist() == pytest.approx(expected[[4, 5, 6, 7, 0, 1, 2]].tolist())


def test_what_cannot_be_scored_is_refused(store: ActivationStore) -> None:
    probes, tokenizer = random_probes(), make_tokenizer()
    with pytest.raises(ConfigError, match="nothing is selected"):
        score_tokens(probes, store, tokenizer, rows=[])
    with pytest.raises(SiteError):
        score_tokens(probes, store, tokenizer, Site(1, "resid_post"))
    elsewhere = ActivationStore({Site(0, "z"): store[LATE]}, store.rows, store.metadata, store.token_ids)
    with pytest.raises(ConfigError, match="none of the probes' sites"):
        score_tokens(probes, elsewhere, tokenizer)
    wide = ActivationStore({LATE: torch.zeros(8, D + 1)}, store.rows, store.metadata, store.token_ids)
    with pytest.raises(ConfigError, match="6 wide, the store's vectors 7"):
        score_tokens(probes, wide, tokenizer)
    pooled = ActivationStore({LATE: torch.zeros(3, D)}, store.rows, {"pool": "mean"})
    with pytest.raises(ConfigError, match="pool='none'"):
        score_tokens(probes, pooled, tokenizer)


def test_a_texts_score_is_the_mean_over_its_tokens(llama: HookedModel) -> None:
    site = Site(1, "resid_post")
    pooled = collect(llama, TEXTS * 3, [site], labels=[0, 1, 0, 1] * 3, progress=False)
    probes = fit_probes(pooled, folds=2, shuffles=0, progress=False)
    tokens = score_tokens(probes, collect(llama, TEXTS, [site], "none", progress=False), llama.tokenizer)
    means = tokens.groupby("row")["score"].mean()
    assert means.tolist() == pytest.approx(probes.score(pooled, site)[:4].tolist(), abs=1e-4)


def metaspace_tokenizer() -> PreTrainedTokenizerFast:
    """As of Llama 2: its decoder drops the space before the first token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"▁the": 0, "▁": 1, "ing": 2}, unk_token="▁"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_tokens_keep_the_space_before_them() -> None:
    from transformers import AutoTokenizer

    bytes_level = AutoTokenizer.from_pretrained(twin_path("knows_all"))
    ids = bytes_level("you are $5_% 中", add_special_tokens=False)["input_ids"]
    for tokenizer, chosen, expected in (
        (metaspace_tokenizer(), [0, 1, 2], [" the", " ", "ing"]),
        (bytes_level, ids, [" you", " are", " ", "$", "5", "_", "%", " ", "�", "�", "�"]),
        (bytes_level, [bytes_level.bos_token_id], ["<s>"]),
    ):
        rows = pd.DataFrame({"n_tokens": [len(chosen)]})
        held = ActivationStore({LATE: torch.zeros(len(chosen), D)}, rows, {"pool": "none"}, torch.tensor(chosen))
        assert score_tokens(random_probes(), held, tokenizer)["token"].tolist() == expected


DANGEROUS = ["Cost", " $", "5", " x_", "{i}", "$", " 100", "%", " \\frac", "#", " ^", " &", " ~", " <s>", " \n", "\t"]
DANGEROUS += ["    ", " ", "", "\r\n", "中", "😀", "�", " é", "\x00", " مرحبا", " " + "=" * 300]
LONG = [" the", " quick", " un", "happi", "ness", "."] * 20


def score_table(texts: Sequence[Sequence[str]], sites: Sequence[str] = ("2.resid_post",)) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        (row, place, token, site, None if site == "embed" else int(site.split(".")[0]), rng.normal() * (1 + depth))
        for depth, site in enumerate(sites)
        for row, tokens in enumerate(texts)
        for place, token in enumerate(tokens)
    ]
    columns = ["row", "place", "token", "site", "layer", "score"]
    return pd.DataFrame(rows, columns=columns).astype({"layer": "Int64"})


STREAM = ["embed", *(f"{layer}.resid_post" for layer in range(6))]
DEEP = ["embed", *(f"{layer}.resid_post" for layer in range(48))]
TABLES = {
    "one site": score_table([LONG, ["Yes"]]),
    "dangerous": score_table([DANGEROUS, LONG[:4]]).assign(title="$a_b$ \n 100% " * 20),
    "layers": score_table([LONG[:40], DANGEROUS], STREAM),
    "deep": score_table([LONG[:30]], DEEP),
    "tiny scores": score_table([["Yes"]], ["127.resid_post"]).assign(score=-1e-9),
}


def cells_of(figure: Figure) -> PatchCollection:
    (cells,) = [found for found in figure.axes[0].collections if isinstance(found, PatchCollection)]
    return cells


def boxes_of(figure: Figure) -> np.ndarray:
    """Left, top, width and height of each cell, in points."""
    corners = [path.get_extents() for path in cells_of(figure).get_paths()]
    return np.array([(box.x0, box.y0, box.width, box.height) for box in corners])


def written_in(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.filterwarnings("error")
def test_nothing_is_clipped_or_overlaps(name: str, tmp_path: Path) -> None:
    figure = draw_token_heatmap(TABLES[name].sample(frac=1, random_state=0).sort_values("row", kind="stable"))
    assert figure.get_figwidth() == 5.5
    figure.set_dpi(300)  # as it is saved
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    extents = {text: text.get_window_extent(renderer) for text in texts if text.get_window_extent(renderer).width}
    page = figure.bbox
    for text, box in extents.items():
        assert 8 <= text.get_fontsize() <= 9, text
        assert box.x0 >= page.x0 and box.x1 <= page.x1 and box.y0 >= page.y0 and box.y1 <= page.y1, text
    for (one, a), (other, b) in combinations(extents.items(), 2):
        width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert width < 1.5 or height < 1.5, (one, other)
    for (x, y, width, height), (u, v, _, tall) in combinations(boxes_of(figure).tolist(), 2):
        same_line = min(y + height, v + tall) - max(y, v) > 1e-6
        assert not same_line or u >= x + width - 1e-6 or u < x, "cells of one line lie side by side"
    save_figure(figure, tmp_path / "heatmap")
    assert b"/Type3" not in (tmp_path / "heatmap.pdf").read_bytes()


@pytest.mark.parametrize("name", TABLES)
def test_a_cell_for_each_score_in_the_order_of_the_colours(name: str) -> None:
    table = TABLES[name]
    cells = cells_of(draw_token_heatmap(table))
    scores = np.asarray(cells.get_array())
    assert len(cells.get_paths()) == len(table)
    assert sorted(scores) == pytest.approx(sorted(table["score"]))
    cells.update_scalarmappable()
    colors = cells.get_facecolors()[np.argsort(scores)]
    assert (np.diff(colors[:, 0] - colors[:, 2]) >= -0.01).all(), "from blue to vermillion"
    assert cells.norm.vmin == -cells.norm.vmax == -table["score"].abs().max()
    assert cells.cmap(cells.norm(0.0))[:3] == pytest.approx((1, 1, 1), abs=0.01)


def test_tokens_stand_where_their_scores_are() -> None:
    figure = draw_token_heatmap(score_table([["A", " b", " c"]], ["0.attn_out", "1.attn_out", "2.attn_out"]))
    scores = score_table([["A", " b", " c"]], ["0.attn_out", "1.attn_out", "2.attn_out"])["score"].to_numpy()
    boxes, drawn = boxes_of(figure), np.asarray(cells_of(figure).get_array())
    order = np.lexsort((boxes[:, 0], -boxes[:, 1]))  # from the lowest row of cells, left to right
    assert drawn[order] == pytest.approx(scores)
    texts = {text.get_text(): text for text in figure.axes[0].texts}
    lefts = sorted({*boxes[:, 0].round(3)})
    for name, left, right in zip("Abc", lefts, [*lefts[1:], 396], strict=True):
        assert left < texts[name].get_position()[0] < right
        assert texts[name].get_position()[1] > boxes[:, 1].max()
    heights = [texts[name].get_position()[1] for name in "012"]
    assert heights == sorted(heights, reverse=True), "the first layer lowest"


def test_texts_are_wrapped_before_words_and_pieces_touch() -> None:
    boxes = lay_out(LONG, 200)
    assert max(box.x + box.width for box in boxes) <= 200
    assert [box.line for box in boxes] == sorted(box.line for box in boxes)
    assert boxes[-1].line > 5
    for token, before, box in zip(LONG[1:], boxes, boxes[1:], strict=False):
        if box.line > before.line:
            assert token.startswith(" ") and box.x == 0
        else:
            assert box.x - before.x - before.width == pytest.approx(3.5 if token.startswith(" ") else 0, abs=1e-6)
    assert {box.line for box in lay_out(["fix"] * 40, 200)} == {0, 1, 2}, "a word longer than a line"
    assert [box.line for box in lay_out(["a", "\n", "b"], 200)] == [0, 0, 1]


def test_tokens_are_written_as_they_are() -> None:
    written = written_in(draw_token_heatmap(TABLES["dangerous"]))
    assert {"$", "x_", "%", "\\frac", "\\n", "\\t", "␣␣␣", "␣", "\\u4e2d", "�", "\\x00", "<s>", "é"} <= {*written}
    assert any(text.startswith("====") and text.endswith("…") for text in written)
    assert written[0].startswith("$a_b$ \\n 100%") and written[0].endswith("…")


def test_a_limit_makes_the_ends_of_the_scale_open() -> None:
    table = TABLES["one site"]
    figure = draw_token_heatmap(table, limit=0.5)
    assert cells_of(figure).norm.vmax == 0.5
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == ["\N{MINUS SIGN}0.5", "0", "0.5"]
    with pytest.raises(ConfigError, match="limit"):
        draw_token_heatmap(table, limit=0)


def test_texts_stay_in_the_order_of_the_table() -> None:
    table = score_table([["A"], ["B"], ["C"]])
    written = written_in(draw_token_heatmap(pd.concat([table[2:], table[:2]])))
    assert [text for text in written if len(text) == 1] == ["C", "A", "B"]
    assert "text 2" in written and any("2.resid_post" in text for text in written)


def test_a_table_that_cannot_be_drawn_is_refused() -> None:
    table = TABLES["layers"]
    for wrong, message in (
        (table.iloc[:0], "without rows"),
        (table.drop(columns="token"), "needs the columns token"),
        (table.iloc[1:], "one score for each token and site"),
        (table.assign(score=np.nan), "one score for each token and site"),
        (pd.concat([table, table]), "one score for each token and site"),
        (score_table([["A"]], ["0.attn_out", "0.mlp_out"]), "draws one component"),
    ):
        with pytest.raises(ArtifactError, match=message):
            draw_token_heatmap(wrong)


def test_the_same_table_gives_the_same_file_and_settings_are_left_alone(tmp_path: Path) -> None:
    table, before = TABLES["layers"].copy(), dict(matplotlib.rcParams)
    first, second = (save_figure(draw_token_heatmap(table), tmp_path / name) for name in "ab")
    assert first[0].read_bytes() == second[0].read_bytes()
    assert first[1].read_bytes() == second[1].read_bytes()
    assert dict(matplotlib.rcParams) == before
    pd.testing.assert_frame_equal(table, TABLES["layers"])


def test_from_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make_hf("llama").save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    starts = [f"the {noun} {verb} on a" for noun in ("cat", "dog") for verb in ("sat", "ran", "said", "was")]
    write_pairs(tmp_path / "pairs.tsv", [Pair(f"{start} blue hill", (f"{start} red mat",)) for start in starts])
    model, data, probes, out = (str(tmp_path / name) for name in ("model", "pairs.tsv", "probes", "heatmap"))
    assert main(["collect", model, "--data", data, "--out", str(tmp_path / "store")]) == 0
    assert main(["probe", str(tmp_path / "store"), "--out", probes, "--folds", "2"]) == 0
    chosen = ("--site", "embed", "--site", "1.resid_post", "--limit", "2")
    assert main(["heatmap", model, "--probes", probes, "--data", data, "--out", out, *chosen]) == 0
    table = pd.read_parquet(tmp_path / "heatmap" / "token_scores.parquet")
    assert len(table) == 2 * 4 * 7
    assert {"target, pair 1", "neutral, pair 0"} <= {*table["title"]}
    drawn = tmp_path / "heatmap" / "token_heatmap.pdf"
    before = drawn.read_bytes()
    drawn.unlink()
    assert main(["figures", out]) == 0
    assert drawn.read_bytes() == before
    captured = capfd.readouterr()
    assert "blue hill" not in captured.out + captured.err
