"""What clients' libraries keep for the life of the process is there before the first test of this level."""

import pytest
from support.hygiene import begin_what_libraries_keep


@pytest.fixture(scope="session", autouse=True)
def _libraries_have_begun() -> None:
    begin_what_libraries_keep()
