"""What the kernel says of its queues."""

from __future__ import annotations

from pathlib import Path

from common.adapters.agent.queue_depths import queue_depths

# As Linux 6.1 writes it: queue, port id, waiting, copy mode, range, dropped, at the socket, id, 1
STATISTICS = """\
 3310  12345     7 2  4016     0     3      123  1
 3311 -54321 16384 2  4016    12     0      456  1
 3320     99     0 2  4016     0     0        0  1
"""


def test_packets_that_wait_are_told_by_queue(tmp_path: Path) -> None:
    (tmp_path / "queues").write_text(STATISTICS)
    assert queue_depths([3310, 3311, 4000], str(tmp_path / "queues")) == {3310: 7, 3311: 16384}


def test_where_nothing_is_told_nothing_is_known(tmp_path: Path) -> None:
    assert queue_depths([3310], str(tmp_path / "missing")) == {}
    (tmp_path / "other").write_text("some other format\n")
    assert queue_depths([3310], str(tmp_path / "other")) == {}
