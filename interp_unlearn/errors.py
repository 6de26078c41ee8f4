"""Errors a user can act on: each says what was got, what was expected and what to do.

The command line prints any `InterpError` as one line and exits with code 2.
"""

from pathlib import Path

_LINE_BREAKS = {ord(mark): " " for mark in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"}


class InterpError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        message: in one line; line breaks in what it quotes become spaces.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message.translate(_LINE_BREAKS))


class SiteError(InterpError):
    """A place in the model that does not exist, or that a backend cannot reach."""


class CheckpointError(InterpError):
    """A model or tokenizer that cannot be loaded."""


class BackendError(InterpError):
    """A backend that cannot do what was asked, or disagrees with the reference."""


class ConfigError(InterpError):
    """A setting out of range, or settings that contradict each other."""


class ArtifactError(InterpError):
    """A stored result that is missing, damaged, or belongs to something else."""


class DiskError(ArtifactError):
    """A disk that is full or takes no writing: nothing that a measure may fail of, so that suites stop at it."""


class ScoreError(InterpError):
    """A score that is missing or is no probability: an error is never counted as a clean text."""


class HubError(InterpError):
    """Something of the hub that is not there, is closed to the user, or cannot be reached."""


class DataError(InterpError):
    """Input data that is empty or malformed.

    Args:
        path: the file, or any short name of the input when it was no file.
        message: what was expected and what was found.
        line: line number, counted from 1, if the error has one.
    """

    def __init__(self, path: str | Path, message: str, line: int | None = None) -> None:
        place = f"{path}:{line}" if line is not None else f"{path}"
        super().__init__(f"{place}: {message}")
        self.path = path
        self.line = line
        self._message = message

    def __reduce__(self) -> tuple[type, tuple[str | Path, str, int | None]]:
        """How it is made again where it arrives from another process."""
        return type(self), (self.path, self._message, self.line)
