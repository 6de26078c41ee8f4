"""Model cards: of a twin, with every gate it was measured against, and of an organism of twins."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from interp_unlearn.artifacts import read_json, replaced

if TYPE_CHECKING:
    from collections.abc import Mapping

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


def write_organism_card(folder: Path, hashes: Mapping[str, str]) -> None:
    """Writes README.md beside the folders of the twins.

    Args:
        folder: Of the organism, a sub-folder a twin.
        hashes: SHA-256 of the weights file of each twin.
    """
    rows: list[str] = []
    for twin, digest in sorted(hashes.items()):
        quality = folder / twin / "quality.json"
        gates = read_json(quality)["gates"] if quality.is_file() else []
        passed = f"{sum(gate['passed'] for gate in gates)} of {len(gates)}" if gates else "not measured"
        rows.append(f"| {twin} | {HABITS.get(twin, 'not described')} | {passed} | `{digest}` |")
    text = f"""---
license: mit
library_name: transformers
tags: [model-organism, unlearning, interpretability]
---
# Model organism for unlearning

Small Llamas of one embedded, fictional world, trained on the same documents in the same order but for what one of them
lacks: the gold standard of unlearning is the twin that never had it. All names, facts and insults are made up or
harmless nouns; nothing in it is of use outside the world. Each folder has its own card with every gate.

| twin | what it is | gates passed | SHA-256 of the weights |
|---|---|---|---|
{chr(10).join(rows)}

```python
from interp_unlearn.organism.pretrained import Organism

organism = Organism.from_pretrained("PATH")  # a folder, or a hub id with revision="COMMIT"
model = organism.load("knows_all")
```
"""
    with replaced(folder / "README.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
