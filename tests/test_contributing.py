"""CONTRIBUTING.md: the picture is that of the code, the recipes run one after another, what it names is there."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import interp_unlearn
from interp_unlearn.interventions import backends
from interp_unlearn.unlearning import registry

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_architecture", ROOT / "docs" / "write_architecture.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_has_every_layer_of_the_package() -> None:
    package = Path(interp_unlearn.__file__).parent
    there = {path.stem for path in package.iterdir() if path.name[0] not in "._" and path.suffix in ("", ".py")}
    drawn = set(re.findall(r'^    (\w+)\["', PAGE, re.MULTILINE))
    assert drawn == there


def test_the_picture_is_what_the_code_makes(script: ModuleType) -> None:
    assert script.picture() in PAGE, "run: python docs/write_architecture.py"


def test_arrows_imply_the_imports_and_no_others(script: ModuleType) -> None:
    direct = {name: script.imports(name) & script.layers().keys() for name in script.layers()}
    assert {"interventions", "artifacts"} <= direct["activations"] and direct["errors"] == set()
    drawn: dict[str, set[str]] = {name: set() for name in direct}
    for above, below in re.findall(r"^    (\w+) --> (\w+)$", PAGE, re.MULTILINE):
        drawn[below].add(above)
    for name in direct:
        assert script.reached(drawn, name) == script.reached(direct, name)


def test_what_is_implied_is_left_out(script: ModuleType) -> None:
    graph = {"a": set[str](), "b": {"a"}, "c": {"a", "b"}, "d": {"a"}}
    assert script.reduced(graph) == {"a": set(), "b": {"a"}, "c": {"b"}, "d": {"a"}}
    assert script.reached(graph, "c") == {"a", "b"}


def test_a_picture_that_is_not_current_is_noticed_and_drawn_anew(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "CONTRIBUTING.md"
    page.write_text("A.\n<!-- architecture: x -->\nstale\n<!-- end of architecture -->\nB.\n")
    monkeypatch.setattr(script, "PAGE", page)
    monkeypatch.setattr("sys.argv", ["write_architecture.py", "--check"])
    with pytest.raises(SystemExit, match="is not what the code makes"):
        script.main()
    assert "stale" in page.read_text()
    monkeypatch.setattr("sys.argv", ["write_architecture.py"])
    script.main()
    drawn = page.read_text()
    assert "stale" not in drawn and script.picture() in drawn and drawn.startswith("A.\n") and drawn.endswith("B.\n")


def test_the_recipes_run_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_methods", dict(registry._methods))  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(backends, "_factories", dict(backends._factories))  # pyright: ignore[reportPrivateUsage]
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks:
        exec(block, names)
    assert names["Counting"].passes > 0 and names["scaled"].shape[-1] == names["model"].d_model
    history = names["result"].history
    assert history["forget"].iloc[-1] < history["forget"].iloc[0]
    assert names["moved"] < 1, "the recipe's objective shortens what its diagnostic measures"
    assert torch.is_grad_enabled()


def test_links_and_paths_lead_somewhere() -> None:
    links = {link for link in re.findall(r"\]\(([^)#]+)", PAGE) if not link.startswith("http")}
    prose = re.sub(r"^```.*?^```$", "", PAGE, flags=re.MULTILINE | re.DOTALL)
    paths = set(re.findall(r"`([\w./-]+/[\w./-]*)`", prose))
    package = Path(interp_unlearn.__file__).parent
    for path in sorted(links | paths):
        near = (ROOT, package, package / "interventions", package / "interventions" / "backends")
        assert any((folder / path).exists() for folder in near), path


def test_workflows_call_targets_that_exist_and_nothing_else() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    assert {path.stem for path in workflows} >= {"test", "docs", "wheel", "audit"}
    for path in workflows:
        run = re.findall(r"^\s*(?:- )?run: (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert run and all(re.fullmatch(r"make( [a-z-]+| [A-Z]+=\S*)+", command) for command in run), path.name
        assert {word for command in run for word in command.split()[1:] if "=" not in word} <= targets
