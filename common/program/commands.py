"""The commands that both programs have: run, check, keygen, and the flags these share."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import click

from common import __version__
from common.adapters import checks, key_rotation, keyfile
from common.adapters.aside import aside
from common.adapters.bpf.libbpf import BpfError
from common.adapters.checks import Problem
from common.core.keys import Keyring, derive
from common.program import logs
from common.program.examination import Line
from common.program.keys import read_keys
from common.program.reporting import (
    HOST_ERRORS,
    UsageProblems,
    failures,
    refuse,
    show,
    usage_problems,
)

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

CHECK_HELP = """Check the configuration and the key; start nothing.

As root also tell what about this host would prevent a start. The exit code is 2 if the
configuration, a flag or the key file is wrong, else 0.
"""

FLUSH_HELP = """Remove what an ended program left on this host.

Its firewall rules, and the connections that the kernel goes on with after SIGTERM or a crash, which
then stand still. The exit code is 1 while the program runs: end it by SIGINT, which leaves nothing.
"""

KEYGEN_HELP = """Make a new secret key in FILE (default /etc/l3dsr/key), readable by its owner only.

{advice}A file that exists is not overwritten; the exit code is then 2.

\b
To replace a key without losing a connection, three times: change the file, copy it to every host,
and tell all programs to read it (SIGHUP, systemctl reload). Hosts may be told in any order; go on
once all have been.
  {name} keygen --add      a second key: accepted from now on, not used yet
  {name} keygen --switch   the second key is used from now on, the first accepted still
  {name} keygen --drop     the old key goes
"""

NEXT_STEP = (
    "copy it to every host and send the programs SIGHUP there (systemctl reload), in any order"
)
FOLLOWED_BY = {"add": "switch", "switch": "drop"}

Flag = Callable[[Any], Any]  # a decorator that click.option gives
PORT: Flag = click.option("--port", type=int, help="Port that clients connect to, 1 to 65535.")


class Configuration(Protocol):
    """What both programs' configurations have."""

    @property
    def key_file(self) -> str: ...

    @property
    def datapath(self) -> str: ...

    @property
    def queue(self) -> int: ...

    @property
    def log_level(self) -> str: ...


C = TypeVar("C", bound=Configuration)


@dataclass(slots=True)
class Program(Generic[C]):
    """What is a program's own. Its functions import what they run when they are called, so that
    help and errors are quick.

    `describe` gives the lines of a valid configuration, `problems` what prevents a start, and
    `host_problems` the same without the key, and what a running program would hold itself.
    `examine` gives the doctor's lines. `serve` is also given what reads the configuration again.
    `load_fast_path` gives the kernel's part, or raises BpfError where the kernel refuses it;
    `flush` removes what an ended program left in the kernel.
    """

    name: str
    standard_file: str
    help: str
    epilog: str
    flags: tuple[Flag, ...]
    parse: Callable[[str, str], C]
    default: Callable[[], C]
    override: Callable[..., C]
    describe: Callable[[C], Iterable[str]]
    problems: Callable[[C], list[Problem]]
    host_problems: Callable[[C], list[Problem]]
    load_fast_path: Callable[[C], object]
    flush: Callable[[], None]
    examine: Callable[[C], Iterator[Line]]
    serve: Callable[[C, Callable[[], C]], None]
    key_advice: str = ""

    def configuration(self, flags: dict[str, Any]) -> C:
        """The configuration that the flags ask for; raises UsageProblems."""
        others = {name: value for name, value in flags.items() if name != "file"}
        found = self._written(flags["file"])
        with usage_problems():
            return self.override(found, **others)

    def _written(self, file: str | None) -> C:
        """The configuration in `file`; without one in the standard file, or else the default."""
        path = file or self.standard_file
        try:
            with open(path, encoding="utf-8") as stream:
                text = stream.read()
        except FileNotFoundError:
            if file is None:
                return self.default()
            raise UsageProblems([f"{file}: there is no such file"]) from None
        except OSError as error:
            raise UsageProblems([f"{path}: cannot be read: {error.strerror}"]) from None
        except UnicodeDecodeError:
            raise UsageProblems([f"{path}: is not UTF-8 text"]) from None
        with usage_problems():
            return self.parse(text, path)


# --- flags ----------------------------------------------------------------------------------------


def flags(interface: str, *own: Flag) -> tuple[Flag, ...]:
    """A program's own flags among those of both; `interface` is the help of --interface."""
    return (
        click.option("--config", "file", metavar="FILE", help="Configuration, a TOML file."),
        click.option("--interface", metavar="NAME", help=interface),
        *own,
        click.option(
            "--datapath",
            type=click.Choice(["auto", "ebpf", "nfqueue"]),
            help="auto: ebpf where the kernel takes it, else nfqueue.",
        ),
        click.option(
            "--log-level",
            type=click.Choice(["debug", "info", "warning", "error"]),
            help="Least important messages that are logged.",
        ),
    )


def with_flags(flags: tuple[Flag, ...]) -> Flag:
    """Give a command all these options, in their order."""

    def decorate(command: Any) -> Any:
        for flag in reversed(flags):
            command = flag(command)
        return command

    return decorate


def merged(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Flags before and after a subcommand's name; of a flag in both places the later holds."""
    return before | {name: value for name, value in after.items() if value not in (None, ())}


# --- commands -------------------------------------------------------------------------------------


def group(program: Program[C]) -> click.Group:
    """The program's command: without a subcommand it runs; `check` and `keygen` are there."""

    @click.group(
        name="main",
        invoke_without_command=True,
        context_settings=HELP,
        help=program.help,
        epilog=program.epilog,
    )
    @with_flags(program.flags)
    @click.version_option(__version__, prog_name=program.name, message="%(prog)s %(version)s")
    @click.pass_context
    def main(context: click.Context, /, **flags: Any) -> None:
        context.obj = flags
        if context.invoked_subcommand is None:
            _run(program, flags)

    main.add_command(_check(program))
    main.add_command(_flush(program))
    main.add_command(_keygen(program))
    return main


def _run(program: Program[C], flags: dict[str, Any]) -> None:
    again = partial(program.configuration, flags)
    configuration = again()
    # By itself SIGHUP would end the program: it waits until it can be heeded.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        # Asked in a child process, as it loads much that serving does not need.
        refuse(aside(program.problems, configuration))
        logs.setup(configuration.log_level)
        with failures(program.name, *HOST_ERRORS):
            program.serve(configuration, again)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _check(program: Program[C]) -> click.Command:
    @click.command(help=CHECK_HELP)
    @with_flags(program.flags)
    @click.pass_obj
    def check(before: dict[str, Any], /, **flags: Any) -> None:
        configuration = program.configuration(merged(before, flags))
        for line in program.describe(configuration):
            click.echo(line)
        root = is_root()
        bad_key: keyfile.KeyFileError | None = None
        found: list[Problem] = []
        try:
            held = read_keys(configuration.key_file, program.name)
            click.echo(f"keys: {Keyring(held)}")
        except keyfile.Unreadable as error:
            if root:
                found.append(Problem(str(error), error.cure))
            else:
                click.echo(f"not checked: {error}")
        except keyfile.KeyFileError as error:
            bad_key = error  # told of last: it decides the exit code
        if root:
            found += _datapath(program, configuration)
            found += program.host_problems(configuration)
        show(found)
        if bad_key is not None:
            with usage_problems():
                raise bad_key
        ready = not any(problem.fatal for problem in found)
        click.echo("the configuration is valid" + ("" if ready else ", but this host is not ready"))

    return check


def _flush(program: Program[C]) -> click.Command:
    @click.command(help=FLUSH_HELP)
    @with_flags(program.flags)
    @click.pass_obj
    def flush(before: dict[str, Any], /, **flags: Any) -> None:
        configuration = program.configuration(merged(before, flags))
        lacking = checks.privileges(program.name) or checks.queue(configuration.queue)
        refuse(lacking or checks.alone(program.name))
        with failures(program.name, *HOST_ERRORS):
            program.flush()
        click.echo(f"nothing of {program.name} is left on this host")

    return flush


def _datapath(program: Program[C], configuration: C) -> list[Problem]:
    if configuration.datapath == "ebpf":
        try:
            program.load_fast_path(configuration)
        except BpfError as error:
            what = f"a start would fail: datapath ebpf: {error}"
            return [Problem(what, "choose nfqueue, or auto (--datapath)")]
    return []


def _keygen(program: Program[C]) -> click.Command:
    @click.command(help=KEYGEN_HELP.format(advice=program.key_advice, name=program.name))
    @click.argument("file", default="/etc/l3dsr/key")
    @click.option("--add", "step", flag_value="add", help="Begin to replace the key in FILE.")
    @click.option("--switch", "step", flag_value="switch", help="Use the key that was added.")
    @click.option("--drop", "step", flag_value="drop", help="Remove the key that was replaced.")
    def keygen(file: str, step: str | None) -> None:
        with usage_problems():
            if step is None:
                keyfile.create(file)
                told = "new key; every balancer and bridge needs a copy of this file"
            else:
                told = f"{_rotate(step, file)}; {NEXT_STEP}"
        click.echo(f"{file}: {told}")
        if step in FOLLOWED_BY:
            click.echo(f"when all have read it: {program.name} keygen --{FOLLOWED_BY[step]} {file}")

    return keygen


def _rotate(step: str, file: str) -> str:
    """Change the key file; says what is in it now."""
    change = {"add": key_rotation.add, "switch": key_rotation.switch, "drop": key_rotation.drop}
    return f"{Keyring([derive(key) for key in change[step](file)])}"


def is_root() -> bool:
    return os.geteuid() == 0
