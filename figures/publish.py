"""Puts what a finished study found where it is read: its figures into this folder, its tables into README and docs.

`make figures` publishes runs/organism, runs/toxicity and runs/knowledge, whichever are there. With --check nothing is
written: exit code 1 says that something published is older than the run.
"""

import argparse
import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent


def main() -> int:
    """Publishes runs, or checks that they are published."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of `reproduce` or of `compare`")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    stale = 0
    for run in arguments.runs:
        files = published(run)
        if not files:
            advice = "run `make reproduce`, `make toxicity` or `make knowledge` first"
            print(f"{run} holds no finished study; {advice}", file=sys.stderr)
            return 2
        for target, content in files.items():
            if target.exists() and target.read_bytes() == content:
                continue
            stale += 1
            if arguments.check:
                print(f"{target.name} is not what {run} holds", file=sys.stderr)
            else:
                target.write_bytes(content)
    return int(arguments.check and stale > 0)


def published(run: Path) -> dict[Path, bytes]:
    """What a run makes of each file; nothing if it is not finished."""
    drawn = sorted((run / "figures").glob("*.p[dn][fg]"))
    readme = ROOT / "README.md"
    if not drawn:
        return {}
    if (run / "dissociation.md").exists():
        files = {HERE / figure.name: figure.read_bytes() for figure in drawn}
        return files | {readme: _filled(readme, "results", run / "dissociation.md")}
    if not (run / "ranking.md").exists():
        return {}
    goal = json.loads((run / "run.json").read_text(encoding="utf-8"))["identity"]["goal"]
    files = {HERE / f"{goal}_{figure.name}": figure.read_bytes() for figure in drawn if "excess" in figure.name}
    files[readme] = _filled(readme, f"{goal} comparison", run / "ranking.md")
    page = ROOT / "docs" / f"{goal}.md"
    for block in ("comparison", "ablation", "search"):
        if (run / f"{block}.md").exists():
            files[page] = _filled(page, f"{goal} {block}", run / f"{block}.md", files.get(page))
    return files


def _filled(target: Path, block: str, source: Path, text: bytes | None = None) -> bytes:
    """The target with a table between the marks of a block."""
    found = (target.read_bytes() if text is None else text).decode()
    marks = re.compile(rf"(<!-- {block}: make figures -->\n).*?(<!-- end of {block} -->)", re.DOTALL)
    if not marks.search(found):
        raise SystemExit(f"{target.name} has no marks of a block {block!r}")
    table = source.read_text(encoding="utf-8")
    return marks.sub(lambda match: f"{match[1]}{table}{match[2]}", found).encode()


if __name__ == "__main__":
    sys.exit(main())
