"""What the whole test run shares: the examples of README and docs are tests.

Every fenced block marked `python` runs, in the order of the page and in one namespace per page; what a block with `>>>`
prints is compared. `<!--- skip: next -->` before a block leaves it out.
"""

from doctest import ELLIPSIS, NORMALIZE_WHITESPACE

import pytest
from sybil import Sybil
from sybil.integration.pytest import SybilItem
from sybil.parsers.myst import PythonCodeBlockParser, SkipParser

pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(doctest_optionflags=ELLIPSIS | NORMALIZE_WHITESPACE), SkipParser()],
    patterns=["README.md", "docs/**/*.md", "docs/*.md"],
    excludes=["docs/_build/**"],
).pytest()


collect_ignore = ["src/labwright/examples", "tests/instruments/scripts"]
"""The sites that are shipped have tests of their own, which `tests/examples` runs as a user would; scripts are run."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the blocks of a page back in order after pytest-randomly has shuffled: later ones build on earlier ones."""
    places = [place for place, item in enumerate(items) if isinstance(item, SybilItem)]
    in_order = sorted((items[place] for place in places), key=lambda item: (item.path, item.location[1] or 0))
    for place, item in zip(places, in_order, strict=True):
        items[place] = item
