"""The secret's file: made readable by its owner only, refused when it is no secret."""

import os
import stat
from pathlib import Path

import pytest

from common.adapters import keyfile
from common.adapters.keyfile import KeyFileError


def test_a_new_key_is_32_bytes_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "l3dsr" / "key"
    before = os.umask(0)
    try:
        keyfile.create(str(path))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    (key,) = keyfile.load(str(path))
    assert len(key) == 32
    assert path.read_text() == key.hex() + "\n"


def test_keys_differ(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("a", "b")]
    for path in paths:
        keyfile.create(path)
    assert keyfile.load(paths[0]) != keyfile.load(paths[1])


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("precious")
    with pytest.raises(KeyFileError, match="exists and is not overwritten"):
        keyfile.create(str(path))
    assert path.read_text() == "precious"


def test_a_directory_is_not_advised_to_be_removed(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="is a directory") as caught:
        keyfile.create(str(tmp_path))
    assert caught.value.cure == f"name a file, such as {tmp_path}/key"


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyFileError, match="cannot be written"):
        keyfile.create(str(tmp_path / "file" / "key"))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(keyfile.Unreadable, match="does not exist") as caught:
        keyfile.load(str(tmp_path / "key"), "packetbridge")
    assert caught.value.cure == f"copy {tmp_path / 'key'} from the balancer's host"


def test_a_directory_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError):
        keyfile.load(str(tmp_path))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o644])
def test_a_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    keyfile.create(str(path))
    path.chmod(mode)
    with pytest.raises(KeyFileError, match=f"mode {mode:04o}") as caught:
        keyfile.load(str(path))
    assert caught.value.cure == f"chmod 600 {path}"


def test_a_stricter_mode_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "key"
    keyfile.create(str(path))
    path.chmod(0o400)
    assert keyfile.load(str(path))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "00" * 15,
        "00" * 65,
        "0" * 33,
        "xy" * 16,
        "00 " * 16,
        "00\n" * 16,
        "é" * 32,
        ("00" * 16 + "\n") * 3,
        "00" * 16 + "\n" + "00" * 15,
        "00" * 16 + "\n\n" + "00" * 16,
        "\n" + "00" * 16,
    ],
)
def test_other_content_is_refused(tmp_path: Path, text: str) -> None:
    path = _written(tmp_path, text)
    with pytest.raises(KeyFileError, match="does not hold one line of 32 to 128 hexadecimal"):
        keyfile.load(str(path))


@pytest.mark.parametrize("size", [16, 32, 64])
def test_other_sizes_with_or_without_a_line_end(tmp_path: Path, size: int) -> None:
    assert keyfile.load(str(_written(tmp_path, "aB" * size))) == (b"\xab" * size,)
    assert keyfile.load(str(_written(tmp_path, "01" * size + "\n"))) == (b"\x01" * size,)


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("sizes", [(32, 32), (16, 64), (64, 64)])
def test_a_second_line_is_another_key(tmp_path: Path, sizes: tuple[int, int], end: str) -> None:
    text = "01" * sizes[0] + "\n" + "02" * sizes[1] + end
    keys = b"\x01" * sizes[0], b"\x02" * sizes[1]
    assert keyfile.load(str(_written(tmp_path, text))) == keys


def test_the_same_key_twice_is_one(tmp_path: Path) -> None:
    assert keyfile.load(str(_written(tmp_path, "01" * 16 + "\n" + "01" * 16))) == (b"\x01" * 16,)


def test_a_running_program_is_not_advised_to_make_a_key_of_its_own(tmp_path: Path) -> None:
    path = str(tmp_path / "key")
    with pytest.raises(KeyFileError) as caught:
        keyfile.load(path, keyfile.RUNNING)
    assert caught.value.cure == f"copy {path} from a host that has the right one"


@pytest.mark.root
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    keyfile.create(str(path))
    os.chown(path, 1000, 0)
    with pytest.raises(KeyFileError, match="belongs to user 1000") as caught:
        keyfile.load(str(path))
    assert caught.value.cure == f"chown 0 {path}"


def _written(directory: Path, text: str) -> Path:
    path = directory / "key"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return path
