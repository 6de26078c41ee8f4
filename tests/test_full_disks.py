"""A disk that is full: one line, nothing half-written, and with room again the same command makes the same files."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from test_cli import results, run, workplace  # noqa: F401 fixtures among them

from interp_unlearn.cli import main

# ruff: noqa: F811 a test's arguments are the fixtures

VERBS: dict[str, Callable[[Path], tuple[object, ...]]] = {
    "collect": lambda f: ("collect", f / "model", "--data", f / "pairs.tsv", "--limit", 12),
    "probe": lambda f: ("probe", f / "store", "--folds", 3),
    "unlearn": lambda f: (
        *("unlearn", f / "model", "--data", f / "pairs.tsv", "--objective", "cosine_rmu", "--layers", 1),
        *("--steps", 4, "--batch-size", 4, "--keep-every", 2),
    ),
    "evaluate": lambda f: ("evaluate", f / "changed", "--against", f / "model", "--data", f / "pairs.tsv"),
    "drift": lambda f: ("drift", f / "changed", "--against", f / "model", "--data", f / "pairs.tsv"),
    "attack": lambda f: (
        *("attack", "prune", f / "changed", "--against", f / "model", "--data", f / "pairs.tsv"),
        *("--texts", 8, "--sparsity", 0.5),
    ),
    "dissect": lambda f: ("dissect", f / "changed", "--against", f / "model", "--data", f / "pairs.tsv"),
}


def files(folder: Path) -> dict[str, bytes]:
    """Every file by its path, but for what holds times and facts of the host."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != "run.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def code_of(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def error_of(capfd: pytest.CaptureFixture[str]) -> str:
    """The one line of an error, whatever stood before it."""
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1, said
    return said[0]


def naming(monkeypatch: pytest.MonkeyPatch, fails_at: int | None) -> list[str]:
    """Lets what is written get its name up to a number of times; what got one."""
    replace = Path.replace
    named: list[str] = []

    def full(self: Path, target: Path) -> Path:
        if len(named) == fails_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        named.append(target.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    return named


@pytest.mark.parametrize("verb", list(VERBS))
def test_a_full_disk(
    verb: str, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    command = VERBS[verb](results)
    with monkeypatch.context() as patch:
        named = naming(patch, None)
        run(*command, "--out", tmp_path / "whole")
    assert len(named) > 1
    for number in sorted({0, len(named) // 2, len(named) - 1}):
        out = tmp_path / f"out{number}"
        with monkeypatch.context() as patch:
            naming(patch, number)
            capfd.readouterr()
            assert code_of(*command, "--out", out) == 2
        assert "cannot be written (No space left on device), and nothing of it was" in error_of(capfd)
        hidden = [path.name for path in tmp_path.rglob(".*")]
        assert not hidden, "nothing is left half-written"
        run(*command, "--out", out)
        assert files(out) == files(tmp_path / "whole"), (verb, number)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.endswith(".state")) == []


@pytest.mark.parametrize("verb", list(VERBS))
def test_a_place_that_takes_no_files(verb: str, results: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if not Path("/proc/self").exists():
        pytest.skip("no /proc here, in which nobody can write")
    out = Path("/proc/self/out").resolve()
    capfd.readouterr()
    assert code_of(*VERBS[verb](results), "--out", out) == 2
    assert f"{out}: cannot " in error_of(capfd)
