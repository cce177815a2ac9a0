"""Every promise of ``docs/trust.md`` names a test that exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_tests_that_the_page_of_promises_names_exist():
    page = (ROOT / "docs" / "trust.md").read_text("utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    files = [path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    written = {name for text in files for name in re.findall(r"^\s*def (test_\w+)\(", text, re.MULTILINE)}
    assert len(named) > 30
    assert named <= written, sorted(named - written)


def test_every_promise_names_a_test():
    page = (ROOT / "docs" / "trust.md").read_text("utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    assert [row for row in rows if "`test_" not in row] == []
