"""Where a verb's inputs are from: ``hub:`` addresses become files of the cache, and the run's record names them all."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from interp_unlearn.snapshots import PREFIX, Address, fetch_snapshot, source_of

MODELS = ("model", "models", "against", "teacher", "judge", "twin")
SCORERS = ("scorer",)  # a model, and behind a # perhaps its toxic label
FOLDERS = ("probes", "store", "source")  # these name a folder, which on the hub is a repository of its own
OUT = "out"


def with_sources(verb: Callable[..., None]) -> Callable[..., None]:
    """A verb that takes ``hub:OWNER/NAME[/CONFIG[:SPLIT] or /FILE]@REVISION`` wherever it takes a data file or a model,
    and leaves in its run.json what it was given.

    The verb itself sees local paths only. Names are no part of a run's identity: that is by hashes of what is in them.
    """

    @wraps(verb)
    def run(**given: Any) -> None:
        local = {name: _local(name, value) for name, value in given.items()}
        verb(**local)
        _record(local)

    return run


def dataset_file(address: Address) -> Path:
    """The data file that an address names, fetched.

    Raises:
        ConfigError: there is no such part.
        HubError: it cannot be fetched.
        DataError: there is no such file.
    """
    from interp_unlearn.data.hub import DATA_SUFFIXES, hub_dataset

    if address.inside.endswith(DATA_SUFFIXES):
        return hub_dataset(address.repo, revision=address.revision, file=address.inside).path
    config, _, split = address.inside.partition(":")
    return hub_dataset(address.repo, config or None, revision=address.revision, split=split or None).path


def _local(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_local(name, one) for one in value]
    text = value.as_posix() if isinstance(value, Path) else value
    if not isinstance(text, str) or not text.startswith(PREFIX):
        return value
    if isinstance(value, Path) and name not in FOLDERS:
        return value if name == OUT else dataset_file(Address.parse(text))
    if name not in MODELS + FOLDERS + SCORERS:
        return value
    text, mark, part = text.partition("#") if name in (*SCORERS, "source") else (text, "", "")
    address = Address.parse(text)
    folder = fetch_snapshot(address.repo, address.revision).folder / address.inside
    return folder if isinstance(value, Path) else f"{folder}{mark}{part}"


def _record(given: dict[str, Any]) -> None:
    from interp_unlearn.artifacts import IDENTITY_FILE, record_run

    out = given.get(OUT)
    if not isinstance(out, Path) or not (out / IDENTITY_FILE).is_file():
        return
    inputs = {name: _described(name, value) for name, value in given.items() if name != OUT}
    if known := {name: value for name, value in inputs.items() if value}:
        record_run(out, {"inputs": known})


def _described(name: str, value: Any) -> Any:
    """Name, and of a file its hash; never a path, which is of one machine."""
    from interp_unlearn.artifacts import hash_file

    if isinstance(value, list):
        return [entry for one in value if (entry := _described(name, one))]
    if not isinstance(value, Path) and (name not in MODELS + SCORERS or not isinstance(value, str)):
        return None
    if name in SCORERS and isinstance(value, str) and not Path(value).is_dir():
        value = value.partition("#")[0]
    path = Path(value)
    if source := source_of(path):
        found = {key: text for key, text in source.items() if text}
    elif isinstance(value, str) and not path.exists():
        found = {"kind": "model", "repo": value}
    else:
        found = {"name": path.resolve().name}
    return found | {"sha256": hash_file(path)} if path.is_file() else found
