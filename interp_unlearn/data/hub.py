"""Corpora that people ask for by their names on the hub: which need leave, and what to take meanwhile."""

from interp_unlearn.errors import DataError

GATED = {
    "cais/wmdp-bio-forget-corpus": "any biomedical text in the same layout (title, abstract, text)",
    "bio-forget-corpus": "any biomedical text in the same layout (title, abstract, text)",
}
OPEN = {
    "cyber-forget-corpus": "cais/wmdp-corpora",
    "cyber-retain-corpus": "cais/wmdp-corpora",
    "bio-retain-corpus": "cais/wmdp-corpora",
}


def explain_missing_corpus(name: str) -> None:
    """Say how to come by a corpus of WMDP that was named instead of a file.

    Raises:
        DataError: the name is one of theirs; nothing is raised for any other.
    """
    if name in GATED:
        raise DataError(
            name,
            "is gated: ask its authors for access at https://huggingface.co/datasets/cais/wmdp-bio-forget-corpus and "
            f"give the path of the downloaded .jsonl; until then use {GATED[name]}, and say so beside the numbers",
        )
    if name in OPEN:
        raise DataError(
            name, f"is no file: download {name}.jsonl from the dataset {OPEN[name]}, which is open, and give its path"
        )
