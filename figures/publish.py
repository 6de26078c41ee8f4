"""Copies the figures of a finished study into this folder and its table into README.md (`make figures`).

With --check nothing is written: exit code 1 says that README or figures are older than the study.
"""

import argparse
import re
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
BLOCK = re.compile(r"(<!-- results: make figures -->\n).*?(<!-- end of results -->)", re.DOTALL)


def main() -> int:
    """Publishes a run, or checks that it is published."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of `interp-unlearn reproduce`")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    drawn = sorted((arguments.run / "figures").glob("*.p[dn][fg]"))
    if not drawn:
        print(f"{arguments.run} holds no figures; run `make reproduce` first", file=sys.stderr)
        return 2
    table = (arguments.run / "dissociation.md").read_text(encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    current = BLOCK.sub(lambda found: f"{found[1]}{table}{found[2]}", text)
    stale = [figure.name for figure in drawn if not _same(figure, HERE / figure.name)]
    if arguments.check:
        for name in [*stale, *(["README.md"] if current != text else [])]:
            print(f"{name} is not what {arguments.run} holds", file=sys.stderr)
        return int(bool(stale) or current != text)
    for figure in drawn:
        shutil.copyfile(figure, HERE / figure.name)
    README.write_text(current, encoding="utf-8")
    return 0


def _same(one: Path, other: Path) -> bool:
    return other.exists() and one.read_bytes() == other.read_bytes()


if __name__ == "__main__":
    sys.exit(main())
