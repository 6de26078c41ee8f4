"""Each layer of the package imports only from those above it, and importing the package is cheap."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import interp_unlearn

ROOT = Path(interp_unlearn.__file__).parent
LAYERS = (
    {"errors", "sites", "artifacts"},
    {"settings"},
    {"snapshots"},
    {"statistics"},
    {"data"},
    {"models"},
    {"interventions"},
    {"activations"},
    {"probes"},
    {"objectives"},
    {"evaluation"},
    {"directions"},
    {"unlearning"},
    {"drift"},
    {"attacks"},
    {"mechanism"},
    {"figures"},
    {"organism"},
    {"study"},
    {"hub"},
    {"report"},
    {"cli", "__main__"},
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def imported_layers(path: Path) -> set[str]:
    """First component after the package of every import in a file, also under TYPE_CHECKING and in functions."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            names += [f"{module}.{alias.name}" for alias in node.names] if module == "interp_unlearn" else [module]
    return {name.split(".")[1] for name in names if name.startswith("interp_unlearn.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_come_from_above(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert own in RANK, f"{own} has no place in the order of the layers"
    homes = interp_unlearn._HOMES
    below = {name for name in imported_layers(path) if RANK[homes.get(name, name)] > RANK[own]}
    assert not below, f"{own} imports from {sorted(below)}, which come after it"


def test_the_docstring_lists_the_layers_in_order() -> None:
    entries = re.findall(r"^    (\w+(?:, \w+)*)  +\S", interp_unlearn.__doc__, flags=re.MULTILINE)
    assert [set(entry.split(", ")) for entry in entries] == [names - {"__main__"} for names in LAYERS]


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, interp_unlearn, interp_unlearn.errors, interp_unlearn.sites, interp_unlearn.artifacts\n"
        "heavy = {'torch', 'transformers', 'transformer_lens', 'nnsight', 'sklearn', 'pandas', 'matplotlib'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert run.stderr.strip() == ""


def test_the_intervention_layer_imports_no_model_library() -> None:
    code = (
        "import sys\nfrom interp_unlearn import HookedModel\n"
        "sys.exit(', '.join({'transformers', 'transformer_lens', 'nnsight'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert run.stderr.strip() == ""


def test_every_public_name_resolves() -> None:
    for name in interp_unlearn.__all__:
        assert getattr(interp_unlearn, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        interp_unlearn.nothing  # noqa: B018
