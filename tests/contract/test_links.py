"""Every link of the documentation leads somewhere: to a file that is there, to a heading in it."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.pages import slug

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
MARKUP = re.compile(r"\[([^\]]*)\]\([^)]*\)|[`*]")


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCED.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as viewers make them: one that comes again is numbered."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in HEADING.findall(prose(page)):
        anchor = slug(MARKUP.sub(lambda match: match[1] or "", heading))
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


def broken_links(pages: list[Path]) -> Iterator[str]:
    """Each link that leads nowhere, with its page."""
    known: dict[Path, set[str]] = {}
    for page in pages:
        text = re.sub(r"`[^`\n]*`", "", prose(page))
        for link in LINK.findall(text):
            path, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", link):
                continue
            target = (page.parent / path).resolve() if path else page
            if not target.exists():
                yield f"{page.name}: {link}: no such file"
            elif anchor and target.suffix == ".md":
                if target not in known:
                    known[target] = anchors(target)
                if anchor not in known[target]:
                    yield f"{page.name}: {link}: no such heading"


def test_every_link_leads_somewhere() -> None:
    assert list(broken_links(PAGES)) == []


def test_the_reference_of_the_contract_is_linked_throughout() -> None:
    links = [LINK.findall(prose(page)) for page in PAGES if "contract" in page.parts]
    assert len(links) > 30
    assert sum(map(len, links)) > 500


@pytest.mark.parametrize(
    ("link", "told"),
    [
        ("[x](other.md)", False),
        ("[x](other.md#a-heading)", False),
        ("[x](#here)", False),
        ("[x](https://example.org/none)", False),
        ("`[x](none.md)`", False),
        ("[x](none.md)", True),
        ("[x](other.md#another-heading)", True),
        ("[x](#there)", True),
    ],
)
def test_a_link_that_leads_nowhere_is_found(tmp_path: Path, link: str, told: bool) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Here\n\n{link}\n")
    (tmp_path / "other.md").write_text("## A `heading`\n")
    assert bool(list(broken_links([page]))) is told
