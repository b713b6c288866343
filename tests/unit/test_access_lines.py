"""Lines of the access log, and the file that they go to."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.adapters.agent.access_file import AccessFile
from common.core.access_lines import as_json, as_text

RECORD = {
    "flow": "0123456789abcdef",
    "client": "192.0.2.1:4711",
    "key": "/a b",
    "backend": None,
    "bytes": 12,
    "connect": 0.00025,
    "reason": "",
    "again": False,
}


def test_as_json() -> None:
    assert as_json(RECORD) == (
        '{"flow":"0123456789abcdef","client":"192.0.2.1:4711","key":"/a b","backend":null,'
        '"bytes":12,"connect":0.00025,"reason":"","again":false}'
    )


def test_as_text() -> None:
    assert as_text(RECORD) == (
        'flow=0123456789abcdef client=192.0.2.1:4711 key="/a b" backend=- bytes=12 '
        "connect=0.00025 reason=- again=false"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [("-", '"-"'), ('"', r'"\""'), ("a=b", '"a=b"'), ("\n", r'"\n"'), ("é", r'"\u00e9"')],
)
def test_what_would_be_read_as_something_else_is_quoted(value: str, text: str) -> None:
    assert as_text({"key": value}) == f"key={text}"


@given(st.text())
@example("\x7f\x1b[2J\u2028")
def test_a_line_is_one_line_of_ascii_whatever_a_client_has_sent(value: str) -> None:
    for line in (as_json({"key": value}), as_text({"key": value})):
        assert line.isascii()
        assert line.isprintable()
    assert json.loads(as_json({"key": value})) == {"key": value}


def test_a_line_that_was_cut_short_does_not_spoil_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that has room for ten bytes, and then for all."""
    file = AccessFile(str(tmp_path / "log"))
    real, room = os.write, [10]

    def write(number: int, data: bytes) -> int:
        if not room:
            return real(number, data)
        if room[0] == 0:
            raise OSError(errno.ENOSPC, "full")
        done = real(number, data[: room[0]])
        room[0] -= done
        return done

    monkeypatch.setattr(os, "write", write)
    file.write(["first", "second", "third"])
    assert (file.written, file.lost) == (1, 2)
    room.clear()
    file.write(["fourth"])
    assert (file.written, file.lost) == (2, 2)
    file.close()
    assert (tmp_path / "log").read_text() == "first\nseco\nfourth\n"


def test_a_file_that_cannot_be_had_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = AccessFile(str(tmp_path / "later" / "log"))
    for _ in range(3):
        file.write(["lost"])
    (tmp_path / "later").mkdir()
    file.write(["kept"])
    file.close()
    assert (tmp_path / "later" / "log").read_text() == "kept\n"
    assert (file.written, file.lost) == (1, 3)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
