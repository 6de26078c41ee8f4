"""The folder of a run: held by one process at a time, and never by two different runs."""

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from interp_unlearn.artifacts.environments import environments_since
from interp_unlearn.artifacts.files import as_read_back, read_json, write_json
from interp_unlearn.artifacts.writing import make_parents, sweep
from interp_unlearn.errors import ArtifactError

IDENTITY_FILE = "run.json"


def claim_folder(path: str | Path, identity: Mapping[str, object]) -> None:
    """Make ``path`` this run's folder by writing ``identity`` to its run.json; a second claim by the same run passes.

    A run that goes on under other versions is told so. Its run.json names those of the last process that claimed it,
    and every other, see `environments_since`.

    Raises:
        ArtifactError: the folder belongs to a run with another identity, or holds files of no known run.
    """
    file = Path(path) / IDENTITY_FILE
    record = check_claim(path, identity)
    found = record or {"identity": as_read_back(identity)}
    whole = found | environments_since(found, file.parent)
    if whole != record:
        write_json(file, whole)


def check_claim(path: str | Path, identity: Mapping[str, object]) -> dict[str, Any] | None:
    """The run.json of a folder that this run may write to, None where there is none yet; nothing is written.

    Raises:
        ArtifactError: the folder belongs to a run with another identity, or holds files of no known run.
    """
    path = Path(path)
    wanted = as_read_back(identity)
    if path.exists() and not path.is_dir():
        raise ArtifactError(f"{path} is a file, not a folder; choose another --out")
    if (path / IDENTITY_FILE).exists():
        record = read_json(path / IDENTITY_FILE)
        found = record.get("identity") if isinstance(record, dict) else None
        if found != wanted:
            raise ArtifactError(f"{path} holds another run ({_differences(found, wanted)}); choose another --out")
        return cast(dict[str, Any], record)
    if path.exists() and any(path.iterdir()):
        raise ArtifactError(f"{path} is not empty and holds no {IDENTITY_FILE}; choose another --out")
    return None


@contextmanager
def claimed(path: str | Path, identity: Mapping[str, object] | None) -> Generator[Path]:
    """Hold a folder while a run writes to it: no other process may, and a run of another identity is refused.

    The lock is a hidden file beside the folder; it is free again when the process ends, however it ends.

    Args:
        path: the folder.
        identity: written to the folder's run.json, see `claim_folder`; None leaves the folder to appear later.

    Raises:
        ArtifactError: another process holds the folder, it belongs to another run, or cannot be made.
    """
    from filelock import FileLock, Timeout

    path = Path(path).resolve()
    make_parents(path)
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0, is_singleton=True)  # one run may claim twice
    try:
        lock.acquire()
    except Timeout:
        if not Path(lock.lock_file).exists():  # filelock waits where no file can be made, too
            raise ArtifactError(
                f"{path}: cannot be written to (no file can be made there); choose another --out"
            ) from None
        raise ArtifactError(
            f"another process is writing to {path}; wait until it is done, or choose another --out"
        ) from None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be written to ({error.strerror}); choose another --out") from error
    try:
        sweep(path)
        if identity is not None:
            claim_folder(path, identity)
        yield path
    finally:
        if lock.lock_counter == 1:
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def record_run(path: str | Path, facts: Mapping[str, object]) -> None:
    """Add facts about how a run went (its times) to the run.json of its claimed folder.

    They are no part of the run's identity, so they never refuse a later claim.
    """
    file = Path(path) / IDENTITY_FILE
    write_json(file, read_json(file) | dict(facts))


def _differences(found: object, wanted: dict[str, object]) -> str:
    if not isinstance(found, dict):
        return f"its {IDENTITY_FILE} is no JSON object"
    there, here = dict(_leaves(found)), dict(_leaves(wanted))
    keys = sorted(key for key in {*there, *here} if key not in there or key not in here or there[key] != here[key])
    return "; ".join(f"{key}: {_short(there, key)} there, {_short(here, key)} here" for key in keys)


def _leaves(identity: Mapping[str, object], before: str = "") -> Generator[tuple[str, object]]:
    """Every entry by its path: settings lie in objects within the identity."""
    for key, value in identity.items():
        if isinstance(value, dict) and value:
            yield from _leaves(cast(dict[str, object], value), f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _short(leaves: Mapping[str, object], key: str) -> str:
    if key not in leaves:
        return "nothing"
    text = json.dumps(leaves[key], ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."
