"""Journals that are closed when their test ends."""

import pytest

from llmswap.journal.writer import Journal
from tests.journal.samples import FLEET


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.jsonl"


@pytest.fixture
def begin():
    """Start journals that are closed at the end."""
    begun = []

    def begin(settings, **options):
        journal = Journal(FLEET, **options)
        journal.configure(settings)
        begun.append(journal)
        return journal

    yield begin
    for journal in begun:
        journal.close()
