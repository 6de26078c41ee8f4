"""Every block of Python on the pages of docs/ runs as it stands, and says what the page says it does."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from interp_unlearn.interventions import backends
from interp_unlearn.unlearning import registry

DOCS = Path(__file__).parents[1] / "docs"
FENCE = re.compile(r"(?P<mark><!-- not run: .+? -->\n)?^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = {"howto/hub.md": 1, "howto/model.md": 1, "howto/ndif.md": 1, "howto/one-gpu.md": 1}
"""Blocks that need a GPU or a hub, marked on the page with the reason."""


class Block(NamedTuple):
    line: int
    code: str
    runs: bool


def blocks_of(page: str) -> list[Block]:
    text = (DOCS / page).read_text(encoding="utf-8")
    found = [
        Block(text.count("\n", 0, match.start("code")), match["code"], match["mark"] is None)
        for match in FENCE.finditer(text)
    ]
    assert len(found) == text.count("```python"), f"{page}: a block of Python is indented, and so not found"
    return found


PAGES = sorted(
    page
    for page in (path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
    if any(block.runs for block in blocks_of(page))
)

CLAIMS: Mapping[str, Callable[[dict[str, Any]], bool]] = {
    "index.md": lambda names: (
        names["before"] == {"target": 1.0}
        and names["edited"].get("clean", 0) > 0.8
        and names["after"].get("clean", 0) > 0.9
        and names["attack"].curve["target"].iloc[-1] > 0.8
        and (Path("unlearned") / "model.safetensors").exists()
    ),
    "concepts.md": lambda names: (
        names["trace"].logits is None
        and (names["drift"].query("layer == 0")["relative_displacement"] == 0).all()
        and (names["drift"].query("layer == 3")["relative_displacement"] > 0).all()
        and names["model"].hash() != names["original_hash"]
    ),
    "howto/chat.md": lambda names: (
        names["batch"].completion_mask.sum(1).gt(0).tolist() == [True, False]
        and (names["batch"].input_ids == names["model"].tokenizer.bos_token_id).sum().item() == 2
        and "bos" not in names["prompts"][0]
    ),
    "howto/data.md": lambda names: (names["probes"].to_frame()["auroc_bag_of_words"] == 1).all(),
    "howto/objective.md": lambda names: (
        names["result"].history["forget"].iloc[-1] < names["result"].history["forget"].iloc[0]
    ),
    "howto/backend.md": lambda names: "disagrees with the torch backend" in names["refused"],
    "howto/checkpoints.md": lambda names: 0 < len(names["changed"]) <= len(names["first"]) and names["kl"] > 0,
    "howto/one-gpu.md": lambda names: (
        names["model"].blocks_left_out == 2
        and len(names["result"].changed) == 3
        and not names["whole"].is_partial
        and not Path("state").exists()
    ),
    "howto/many-gpus.md": lambda names: (
        names["processes"].size == 1
        and len(names["result"].history) == 4
        and (Path("activations") / "rows.parquet").exists()
        and (Path("unlearned") / "model.safetensors").exists()
    ),
    "howto/ndif.md": lambda names: torch.allclose(names["expected"], names["found"], atol=1e-5),
    "footguns.md": lambda names: (names["table"][["auroc", "auroc_bag_of_words"]] == 1).to_numpy().all(),
    "gallery.md": lambda names: (
        {path.name for path in Path.cwd().glob("*.png")} == {path.name for path in (DOCS / "img").glob("*.png")}
    ),
}


@pytest.fixture(autouse=True)
def _left_as_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page may register methods and backends, and writes where it stands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_methods", dict(registry._methods))  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(backends, "_factories", dict(backends._factories))  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run_one_after_another(page: str) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks_of(page):
        if block.runs:
            # The page's own line numbers in a traceback.
            exec(compile("\n" * block.line + block.code, page, "exec"), names)
    assert torch.is_grad_enabled(), "the page leaves gradients off"
    if page in CLAIMS:
        assert CLAIMS[page](names)


def test_every_claim_is_of_a_page() -> None:
    assert CLAIMS.keys() <= set(PAGES)


def test_what_does_not_run_is_marked_with_its_reason_and_nothing_else_is() -> None:
    pages = (path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
    left_out = {page: sum(not block.runs for block in blocks_of(page)) for page in pages}
    assert {page: count for page, count in left_out.items() if count} == NOT_RUN
    for page in NOT_RUN:
        for block in blocks_of(page):
            compile(block.code, page, "exec")  # at least it is Python
    marks = sum(path.read_text(encoding="utf-8").count("<!-- not run:") for path in DOCS.rglob("*.md"))
    assert marks == sum(NOT_RUN.values()), "a mark stands before no block of Python"
