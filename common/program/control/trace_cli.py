"""The `trace` command."""

from __future__ import annotations

import json
from contextlib import ExitStack, suppress
from pathlib import Path

import click

from common.program.control.cli import Controlled
from common.program.control.remote import Remote


def trace_command(controlled: Controlled) -> click.Command:
    def trace(
        remote: Remote,
        flow: str,
        capture: Path | None,
        count: int,
        seconds: float,
        as_json: bool,
    ) -> None:
        """Show a client's packets as the running {name} gets them, and why it does with each what
        it does, until Ctrl-C.

        FLOW is a client's ADDRESS, its ADDRESS:PORT, or the id of one of its connections. Meanwhile
        the kernel leaves the client's connections to {name}, up to 256; SYNs that the kernel
        answers by itself (datapath ebpf) are not shown.
        """
        from common.program.control.trace_text import Capture, Traced  # noqa: PLC0415 - scapy

        traced = Traced()
        with ExitStack() as stack:
            client = stack.enter_context(remote.client())
            file = None if capture is None else stack.enter_context(Capture(capture))
            pages = client.pages("trace", patience=None, flow=flow, count=count, seconds=seconds)
            with suppress(KeyboardInterrupt):
                while True:
                    try:
                        page = next(pages)
                    except StopIteration as done:
                        _tell(done.value)
                        break
                    for note in page:
                        if file is not None:
                            file.write(note)
                        for line in [json.dumps(note)] if as_json else traced.lines(note):
                            click.echo(line)

    return controlled.command(
        trace,
        "trace",
        click.argument("flow"),
        click.option(
            "--write",
            "capture",
            metavar="FILE.pcap",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Write the packets to a file for tcpdump or Wireshark as well.",
        ),
        click.option("--count", type=click.IntRange(0), default=0, help="End after so many."),
        click.option(
            "--seconds", type=click.FloatRange(0, 86400), default=0.0, help="End after these."
        ),
        click.option("--json", "as_json", is_flag=True, help="A JSON object in each line."),
    )


def _tell(result: dict[str, int]) -> None:
    text = f"{result['packets']} packets of {result['client']}"
    if result["missed"]:
        text += f"; {result['missed']} more came faster than they were read, and are not shown"
    if result["left_to_the_kernel"]:
        text += "; not all of its connections: there were too many to take from the kernel"
    click.echo(text, err=True)
