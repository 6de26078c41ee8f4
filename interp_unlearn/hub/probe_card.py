"""The card of a set of probes: where they read, how well, beside what needs no direction of the model."""

from pathlib import Path
from typing import Any

from interp_unlearn.errors import ArtifactError
from interp_unlearn.hub.markdown import header, table, write_card
from interp_unlearn.probes import ProbeSet

_COLUMNS = (
    "site",
    "auroc",
    "auroc_low",
    "auroc_high",
    "auroc_shuffled",
    "auroc_random_direction",
    "auroc_bag_of_words",
    "auroc_length",
    "n",
    "n_groups",
)


def write_probe_card(
    folder: str | Path, *, title: str | None = None, licence: str | None = None, overwrite: bool = False
) -> Path:
    """Write README.md beside the probes; arguments as of `probe_card`.

    Args:
        overwrite: a README.md that was not written here.

    Raises:
        ArtifactError: the folder holds no probes, or such a README.md.
    """
    return write_card(Path(folder), probe_card(folder, title=title, licence=licence), overwrite)


def probe_card(folder: str | Path, *, title: str | None = None, licence: str | None = None) -> str:
    """The card of probes that `ProbeSet.save_pretrained` or `probe` wrote.

    Args:
        folder: of the probes.
        title: None for the folder's name.
        licence: as the hub calls it; None states none.

    Raises:
        ArtifactError: the folder holds no probes.
    """
    folder = Path(folder)
    if not (folder / "probes.json").is_file():
        raise ArtifactError(f"{folder}: holds no probes.json; expected what ProbeSet.save_pretrained wrote")
    probes = ProbeSet.load(folder)
    metadata: dict[str, Any] = probes.metadata
    shown = [name for name in _COLUMNS if name in probes.table and bool(probes.table[name].count())]
    missing = [name for name in _COLUMNS if name not in shown]
    return f"""{header({"license": licence, "tags": ["probes", "interp-unlearn"]})}

# {title or folder.resolve().name}

Linear probes at {len(probes.sites)} sites of a language model: unit directions in raw residual coordinates, with bias
and scale. They read this model only:

- SHA-256 of its weights: `{metadata["model_hash"]}`
- SHA-256 of the texts: `{metadata.get("data_hash", "not recorded")}`
- pooled by `{metadata["pool"]}`, {"with" if metadata["include_bos"] else "without"} the BOS token

All numbers are out of fold, with 95% bootstrap intervals over groups. An AUROC says that the label can be read there,
not that the model uses it; read it beside that of a bag of words and of a random direction. The best of many sites is
flattered.

{table(probes.table.filter(shown))}

Not measured: {", ".join(missing) or "none of the controls"}.

```python
from interp_unlearn import HookedModel, ProbeSet

probes = ProbeSet.from_pretrained("PATH")  # a folder, or a hub id with revision="COMMIT"
```
"""
