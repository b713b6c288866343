"""The three steps by which a key file's key is replaced."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from balancer.program.cli import main
from common.adapters import key_rotation, keyfile
from common.adapters.keyfile import KeyFileError
from common.core.keys import derive


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    keyfile.create(str(path))
    return path


def test_the_three_steps(path: Path) -> None:
    (old,) = keyfile.load(str(path))
    added = key_rotation.add(str(path))
    assert keyfile.load(str(path)) == added
    assert added[0] == old
    new = added[1]
    assert len(new) == 32
    assert key_rotation.switch(str(path)) == keyfile.load(str(path)) == (new, old)
    assert key_rotation.drop(str(path)) == keyfile.load(str(path)) == (new,)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_the_file_keeps_its_mode_whatever_the_umask_is(path: Path, mode: int) -> None:
    path.chmod(mode)
    before = os.umask(0)
    try:
        key_rotation.add(str(path))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert os.listdir(path.parent) == ["key"]


def test_a_link_stays_a_link(path: Path) -> None:
    link = path.parent / "link"
    link.symlink_to(path)
    key_rotation.add(str(link))
    assert link.is_symlink()
    assert len(keyfile.load(str(path))) == 2


def test_a_step_out_of_turn_is_refused_and_says_which_one_is_due(path: Path) -> None:
    before = path.read_text()
    for step in (key_rotation.switch, key_rotation.drop):
        with pytest.raises(KeyFileError, match="holds one key") as caught:
            step(str(path))
        assert caught.value.cure == f"balancer keygen --add {path}"
    assert path.read_text() == before
    key_rotation.add(str(path))
    before = path.read_text()
    with pytest.raises(KeyFileError, match="holds two keys"):
        key_rotation.add(str(path))
    assert path.read_text() == before


def test_a_file_open_to_others_is_not_touched(path: Path) -> None:
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="mode 0644"):
        key_rotation.add(str(path))
    assert len(path.read_text().split()) == 1


def test_the_commands_say_what_comes_next(path: Path) -> None:
    (old,) = keyfile.load(str(path))
    said = {}
    for step in ("--add", "--switch", "--drop"):
        done = CliRunner().invoke(main, ["keygen", step, str(path)])
        assert done.exit_code == 0
        said[step] = done.output
    (new,) = keyfile.load(str(path))
    old_name, new_name = derive(old).name, derive(new).name
    assert f"{old_name} signs, {new_name} is accepted too" in said["--add"]
    assert f"{new_name} signs, {old_name} is accepted too" in said["--switch"]
    assert f"{new_name} signs; copy" in said["--drop"]
    assert f"balancer keygen --switch {path}" in said["--add"]
    assert f"balancer keygen --drop {path}" in said["--switch"]
    assert "keygen" not in said["--drop"]
    again = CliRunner().invoke(main, ["keygen", "--drop", str(path)])
    assert again.exit_code == 2
    assert f"mend: balancer keygen --add {path}" in again.output
