"""A hook of MkDocs: the figures in figures/ are part of the site, and pages link to them as in the repository."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

FIGURES = Path(__file__).parent.parent / "figures"


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add every figure under figures/."""
    for path in sorted(FIGURES.glob("*.png")):
        files.append(File.generated(config, f"figures/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """From docs/ the folder is one up; in the site it lies beside the pages."""
    return markdown.replace("](../figures/", "](figures/")
