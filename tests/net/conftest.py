"""What a host of the tests has, whatever its network."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.adapters import keyfile


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    keyfile.create(str(path))
    return path
