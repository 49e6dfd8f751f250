"""The page of the filesystem in the documentation tells the truth."""

from __future__ import annotations

import doctest

from pages import REPOSITORY


def test_examples_of_the_page_are_true() -> None:
    """What the page of the filesystem shows is what happens."""
    page = REPOSITORY / "docs/reference/filesystem.md"
    text = "\n".join(
        "" if line.startswith("```") else line for line in page.read_text().split("\n")
    )
    examples = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    outcome = doctest.DocTestRunner().run(examples)
    assert outcome.attempted > 5
    assert outcome.failed == 0
