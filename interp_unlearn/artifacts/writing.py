"""Files and folders written whole or not at all: to a hidden name beside the place, then renamed."""

import errno
import os
import re
import shutil
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from interp_unlearn.errors import ArtifactError, DiskError

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}(\.\w+)?")  # the names of `_beside`
_REPLACED = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{12}\.replaced")  # those of `_aside`
_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_OF_EITHER = {errno.EACCES, errno.EPERM, errno.EIO}  # of reading as well: it depends on the file


@contextmanager
def replaced(path: str | Path) -> Generator[Path]:
    """Yield a temporary path beside ``path``; rename it over ``path`` on success, remove it on failure.

    What is written there may be a file or a folder. A reader sees the old one or the new one, never half of one (of a
    folder that is replaced, for an instant none; of a run that was killed just then, `sweep` puts the old one back).
    The suffix is kept, since some writers choose their format by it. Parent folders are made.

    Raises:
        ArtifactError: the parent folders cannot be made, or the block ended without writing anything.
        DiskError: the disk is full or takes no writing.
    """
    path = Path(path)
    make_parents(path)
    temporary, old = _beside(path), _aside(path)
    try:
        yield temporary
        if not temporary.exists():
            raise ArtifactError(f"nothing was written for {path}: write to the path that replaced() yields")
        if path.is_dir():  # no system call replaces a folder that holds files
            path.rename(old)
        try:
            temporary.replace(path)
        except BaseException:
            if old.exists():
                old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except Exception as error:
        if reason := _refusal(error, (temporary, old, path)):
            raise DiskError(
                f"{path}: cannot be written ({reason}), and nothing of it was; see to the disk, then give the same "
                "command again"
            ) from error
        raise
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def sweep(path: Path) -> None:
    """Remove what a killed run left half-written, in the folder and where the folder itself was to appear.

    What was about to be replaced, and was not, is put back. Of the folders beside it only those of this very name are
    touched: another run may be writing there.
    """
    stem, suffix, name = (re.escape(part) for part in (path.stem, path.suffix, path.name))
    ours = re.compile(rf"\.(?:{stem}\.[0-9a-f]{{12}}{suffix}|{name}\.[0-9a-f]{{12}}\.replaced)")

    def leftovers() -> list[Path]:
        beside = (other for other in path.parent.glob(".*") if ours.fullmatch(other.name))
        return [*beside, *path.rglob(".*")]

    for old in leftovers():
        told = _REPLACED.fullmatch(old.name)
        if told and not old.with_name(told["name"]).exists():
            old.rename(old.with_name(told["name"]))
    for left in leftovers():
        if _TEMPORARY.fullmatch(left.name) and left.exists():
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    """A hidden name of its own in the same folder, with the same suffix."""
    return path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}{path.suffix}")


def _aside(path: Path) -> Path:
    """A hidden name that says what has to be put back."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.replaced")


def make_parents(path: Path) -> None:
    """Make the folders that a path lies in.

    Raises:
        ArtifactError: they cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot make its folder ({error.strerror}); choose another place") from error


def _refusal(error: Exception, places: tuple[Path, ...]) -> str | None:
    """Why the disk took no more, if that is what an error says of one of the places."""
    from safetensors import SafetensorError

    number, name = (error.errno, error.filename) if isinstance(error, OSError) else (None, None)
    if isinstance(error, SafetensorError) and (told := re.search(r"os error (\d+)", str(error))):
        number = int(told[1])
    if name is None:
        known = _OF_WRITING
    elif any(Path(os.fsdecode(name)).is_relative_to(place) for place in places):
        known = _OF_WRITING | _OF_EITHER
    else:
        known = set[int]()
    return os.strerror(number) if number in known else None
