"""Markdown pages: where they are, what is filled into them, and the commands that they show."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dst_cbc.runtime.errors import DataError

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
README = REPOSITORY / "README.md"
GENERATED = "<!-- Written by `python scripts/document.py`. Do not edit this page. -->"

NEEDS = ("a GPU", "a network", "a cluster")
"""What a command may need that a test machine lacks; its block's title says so: `needs a GPU`."""
_BLOCK = re.compile(
    r"^( *)```(\w+)(?: title=\"([^\"]*)\")?\n(.*?)^\1```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A fenced block of code of a page. needs: one of NEEDS, or "" where a test can run it."""

    page: Path
    language: str
    needs: str
    text: str


def written_pages() -> list[Path]:
    """The README and every page below docs/."""
    return [README, *sorted(DOCS.rglob("*.md"))]


def page(title: str, *parts: str) -> str:
    """A generated page."""
    return "\n\n".join([GENERATED, f"# {title}", *parts]) + "\n"


def without_markup(text: str) -> str:
    """Escape plain text for a page: outside of code, `<` begins no HTML and `*` no emphasis."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(p if p.startswith("`") else re.sub(r"([<*_])", r"\\\1", p) for p in parts)


def fill(path: Path, text: str, marker: str, content: str) -> str:
    """`text` of a page with `content` between `<!-- marker -->` and `<!-- /marker -->`.

    Raises DataError when one of the two markers is missing.
    """
    opening, closing = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    before, _, rest = text.partition(opening)
    _, found, after = rest.partition(closing)
    if not found:
        raise DataError(f"{path}: expected `{opening}`, and `{closing}` behind it")
    return f"{before}{opening}\n{content}\n{closing}{after}"


def blocks(path: Path, languages: Sequence[str] = ("sh",)) -> Iterator[Block]:
    """The code blocks of a page in some languages, from top to bottom.

    Raises DataError when the title of a block begins with `needs`, but is not in NEEDS.
    """
    for indent, language, title, text in _BLOCK.findall(path.read_text(encoding="utf-8")):
        if language not in languages:
            continue
        needs = title.removeprefix("needs ") if title.startswith("needs ") else ""
        if needs and needs not in NEEDS:
            raise DataError(f"{path}: a block needs {needs!r}, expected one of {', '.join(NEEDS)}")
        lines = (line.removeprefix(indent) for line in text.splitlines())
        yield Block(path, language, needs, "\n".join(lines))


def commands(block: Block) -> list[str]:
    """The command lines of a block of shell, without comments, continued lines joined."""
    joined = block.text.replace("\\\n", " ")
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line]
