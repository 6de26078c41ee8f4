"""Tries a wheel as a user has it: in an environment of its own, from a folder in which the sources are not.

Installs it with the pinned dependencies and no extra, then: the command line, a shipped twin read and edited, a user's
file type-checked strictly, what importing costs, and with --reproduce the quick study and its page.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent
CONSTRAINTS = HERE.parents[1] / "constraints.txt"
MOST_SECONDS = 0.5
"""What importing the package may cost over importing torch."""

IMPORTED = f"""\
import sys, time
import torch
begun = time.perf_counter()
import interp_unlearn
from interp_unlearn import HookedModel
seconds = time.perf_counter() - begun
heavy = {{"transformers", "sklearn", "pandas", "matplotlib", "transformer_lens", "nnsight"}} & set(sys.modules)
print(f"importing costs {{seconds:.2f}} s over torch, from {{interp_unlearn.__file__}}")
sys.exit(f"imports {{heavy}} unasked" if heavy else "too slow" if seconds > {MOST_SECONDS} else 0)
"""
REFUSED = """\
from interp_unlearn import HookedModel
from interp_unlearn.errors import BackendError
from interp_unlearn.organism.shipped import twin_path
try:
    HookedModel.from_pretrained(str(twin_path("knows_all")), backend="nnsight")
except BackendError as error:
    assert "interp-unlearn[backends]" in str(error), error
else:
    raise SystemExit("nnsight is installed without its extra")
"""
PYRIGHT = '{"typeCheckingMode": "strict", "reportMissingTypeStubs": false, "include": ["uses_package.py"]}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--reproduce", action="store_true", help="run the quick study, which takes minutes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        venv.create(place / "env", with_pip=True)
        work = place / "elsewhere"
        work.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        environment = kept | {"HF_HUB_OFFLINE": "1", "PATH": f"{place / 'env' / 'bin'}{os.pathsep}{kept['PATH']}"}

        def run(*command: str) -> None:
            _run(command, work, environment)

        install = ("python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(CONSTRAINTS))
        run(*install, str(given.wheel.resolve()))
        run("python", "-m", "pip", "check")
        run("interp-unlearn", "--version")
        run("interp-unlearn", "--help")
        _try(("python", "-c", IMPORTED), work, environment)  # the first compiles
        run("python", "-c", IMPORTED)
        run("python", "-c", REFUSED)
        shutil.copy(HERE / "uses_package.py", work)
        run("python", "uses_package.py")
        run(*install, "pyright[nodejs]")
        (work / "pyrightconfig.json").write_text(PYRIGHT, encoding="utf-8")
        run("pyright", "--pythonpath", str(place / "env" / "bin" / "python"))
        if given.reproduce:
            run("interp-unlearn", "reproduce", "--quick", "--out", "quick")
            run("interp-unlearn", "report", "quick", "--out", "quick.html")
    print(f"{given.wheel.name} works")


def _run(command: tuple[str, ...], work: Path, environment: Mapping[str, str]) -> None:
    if code := _try(command, work, environment):
        raise SystemExit(code)


def _try(command: tuple[str, ...], work: Path, environment: Mapping[str, str]) -> int:
    print("$", " ".join(command if len(command[-1]) < 200 else command[:-1]), flush=True)
    return subprocess.run(command, cwd=work, env=dict(environment), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
