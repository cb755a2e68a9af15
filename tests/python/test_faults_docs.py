"""docs/faults.md names tests that there are."""

from __future__ import annotations

import re

from loaders.settings.places import PROJECT_DIR

DEFINED = re.compile(r"^def (test_\w+)\(", re.MULTILINE)


def test_every_fault_that_is_documented_is_tested() -> None:
    rows = [
        line
        for line in (PROJECT_DIR / "docs" / "faults.md").read_text().splitlines()
        if line.startswith("| ") and not line.startswith("| fault ")
    ]
    assert len(rows) > 40
    sources = (PROJECT_DIR / "tests" / "python").rglob("test_*.py")
    defined = {name for path in sources for name in DEFINED.findall(path.read_text())}
    for row in rows:
        assert row.count("|") == 5, row
        named = set(re.findall(r"`(test_\w+)`", row))
        assert named, row
        assert named <= defined, (row, named - defined)


def test_every_acceptance_test_has_a_row() -> None:
    """What a failed one says points here."""
    text = (PROJECT_DIR / "docs" / "faults.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    for path in (PROJECT_DIR / "tests" / "acceptance").glob("*.sql"):
        assert any(f"`{path.stem}`" in row for row in rows), path.stem
