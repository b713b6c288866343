"""One installation for all tests that only look at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.install.host import Host, host


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with the programs below ``directory / "prefix"``."""
    directory = tmp_path_factory.mktemp("host")
    with host(directory) as made:
        made.install(directory / "prefix")
        yield made


@pytest.fixture
def prefix(installed: Host) -> Path:
    return installed.directory / "prefix"
