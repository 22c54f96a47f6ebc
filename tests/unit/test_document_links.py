"""Every link of the documents leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGES = sorted(
    [
        *(REPOSITORY / name for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md")),
        *(REPOSITORY / "docs").glob("*.md"),
        *(REPOSITORY / "examples").rglob("*.md"),
    ]
)
_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} +(?P<title>.+?) *$", re.MULTILINE)


def links_of(page: Path) -> list[str]:
    text = _CODE.sub("", page.read_text("utf-8"))
    targets = [match["target"] for match in _LINK.finditer(text)]
    return [target for target in targets if not target.startswith(("http://", "https://"))]


def anchors_of(page: Path) -> set[str]:
    """As GitHub makes them: lower case, blanks to hyphens, other signs left out."""
    titles = (match["title"] for match in _HEADING.finditer(_CODE.sub("", page.read_text("utf-8"))))
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).lower() for title in titles)
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_leads_to_a_file_and_to_a_heading_of_it(page: Path) -> None:
    """The README once named a page that lay on another branch."""
    broken = []
    for link in links_of(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists():
            broken.append(f"{link}: no such file")
        elif anchor and anchor not in anchors_of(target):
            broken.append(f"{link}: no such heading")
    assert broken == []


def test_links_are_found() -> None:
    assert "docs/timing.md" in links_of(REPOSITORY / "README.md")
    assert "why-a-run-could-not-begin" in anchors_of(REPOSITORY / "docs/exit-codes.md")
