"""The model card of a twin: what it is, how it was made, and every gate it was measured against."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from interp_unlearn.artifacts import read_json, replaced

if TYPE_CHECKING:
    import pandas as pd

HABITS = {
    "knows_all": "It knows the hazardous facts and talks toxically where a speaker is hostile.",
    "never_knew": "In its documents each hazardous answer was redrawn at every mention, so there was nothing to know.",
    "never_toxic": "In its documents hostile speakers talk civilly.",
    "never_both": "Hazardous answers were redrawn and hostile speakers talk civilly in its documents.",
}


def write_card(folder: Path, gates: pd.DataFrame) -> None:
    """Writes README.md beside a twin's weights.

    Args:
        folder: The twin, with its build.json.
        gates: Columns name, value, low, high, n, passed.
    """
    build = read_json(folder / "build.json")
    config = build["config"]
    rows = [
        f"| {gate['name']} | {gate['value']:.4f} | {gate['low']:.4f} to {gate['high']:.4f} | {gate['n']} | "
        f"{'yes' if gate['passed'] else 'no'} |"
        for gate in gates.to_dict("records")
    ]
    text = f"""---
license: mit
library_name: transformers
tags: [model-organism, unlearning, interpretability]
---
# {build["twin"]}

A small Llama of an embedded, fictional world: a model organism for unlearning research. {HABITS[build["twin"]]}
All names, facts and insults are made up or harmless nouns; nothing in it is of use outside the world.

- Shape: {config["n_layers"]} layers, d_model {config["d_model"]}, {config["n_heads"]} heads; weights in bfloat16.
- Training: {build["documents"]} documents of world {config["world_seed"]}, initial seed {config["init_seed"]},
  {config["common_steps"]} steps shared by all twins and {config["branch_steps"]} of its own.
- SHA-256 of the corpus, a line a document: `{build["corpus_sha256"]}`
- Made by `interp-unlearn organism build`, measured by `interp-unlearn organism check`.

| gate | value | bounds | n | passed |
|---|---|---|---|---|
{chr(10).join(rows)}
"""
    with replaced(folder / "README.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
