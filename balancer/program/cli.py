"""The `balancer` command. What runs is imported when it runs, so that help and errors are quick."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import click

from balancer.core import config
from balancer.core.config import Config
from balancer.core.config.services import implied_name
from balancer.program.control import cli as control
from balancer.program.probe.cli import probe
from common.adapters.checks import Problem
from common.program import commands, doctor
from common.program.examination import Line
from common.program.reporting import failures

HELP = """Balance TCP connections over packetbridges by what their first request asks for.

Owns the virtual IP (VIP), answers the client's handshake, reads the request, picks a pool and a
backend in it, and hands the connection over; the backend's responses go straight to the client.
A service of UDP, or one that is not inspected, is balanced by its clients' addresses.

Without --config the configuration is /etc/l3dsr/balancer.toml, or, where that does not exist, the
one of the two-box lab: VIP 192.168.33.10, port 80, one bridge 192.168.33.20. Flags override it.
"""

EPILOG = """\b
Examples:
  balancer keygen                      make the key, then copy it to each bridge
  balancer check                       is the configuration right, is this host ready?
  balancer doctor                      what of this host is well, what not, and what mends it
  balancer probe http://10.0.0.1/      where does a request fail, asked from this host, and why?
  balancer                             run, with the configuration in its usual place
  balancer --vip 10.0.0.1 --bridge 10.0.0.11 --bridge 10.0.0.12
                                       run without a configuration file

\b
Files:
  /etc/l3dsr/balancer.toml             configuration
  /etc/l3dsr/key                       secret shared with the bridges, mode 0600
  /run/l3dsr/balancer.sock             where a running balancer is commanded

\b
Signals:
  SIGINT, SIGQUIT                      stop, and remove all rules
  SIGTERM                              likewise; with datapath ebpf leave connections to the kernel
  SIGHUP                               read the configuration and the key file again
  SIGUSR1                              open the access log anew
  SIGUSR2                              write all counters to the log

\b
Exit codes:
  0  all is well, or the program was told to stop
  1  this host is not ready, or a file cannot be used: each problem and its cure are printed
  2  the configuration or a flag is wrong; for check and keygen also the key file
"""

FLAGS = commands.flags(
    "Where clients' packets come in.",
    click.option("--vip", metavar="ADDRESS", help="Address that clients connect to."),
    commands.PORT,
    click.option("--dscp", type=int, help="Tells the bridges which VIP it is, 1 to 63."),
    click.option(
        "--bridge",
        metavar="ADDRESS",
        multiple=True,
        help="Address of a packetbridge; for several repeat it. Replaces the backends.",
    ),
)


def _describe(checked: Config) -> Iterator[str]:
    for service in checked.services:
        names = ", ".join(backend.name for backend in checked.backends_of(service))
        at = implied_name(service.vip, service.port, udp=service.protocol == "udp")
        named = service.name if service.name == at else f"{service.name} ({at})"
        read = f"inspect {service.inspect}"
        yield f"service {named}: DSCP {service.dscp}, {read}, backends {names}"


def _problems(checked: Config) -> list[Problem]:
    from balancer.program import startup  # noqa: PLC0415

    return startup.problems(checked)


def _load_fast_path(checked: Config) -> object:
    from balancer.program.fast_path import KernelPath  # noqa: PLC0415

    return KernelPath(checked.limits.flows, Counter(), mappings=checked.limits.mappings)


def _flush() -> None:
    from balancer.program import fast_path  # noqa: PLC0415
    from common.adapters.firewall import Firewall  # noqa: PLC0415

    Firewall("balancer", [], []).remove()
    fast_path.clear()


def _host_problems(checked: Config) -> list[Problem]:
    from balancer.program import startup  # noqa: PLC0415

    return startup.host_problems(checked)


def _examine(checked: Config) -> Iterator[Line]:
    from balancer.program import doctor  # noqa: PLC0415

    return doctor.examine(checked)


def _serve(checked: Config, again: Callable[[], Config]) -> None:
    from balancer.program.serve import serve  # noqa: PLC0415

    serve(checked, again)


PROGRAM = commands.Program(
    name="balancer",
    standard_file="/etc/l3dsr/balancer.toml",
    help=HELP,
    epilog=EPILOG,
    flags=FLAGS,
    parse=config.parse,
    default=config.default,
    override=config.override,
    describe=_describe,
    problems=_problems,
    host_problems=_host_problems,
    load_fast_path=_load_fast_path,
    flush=_flush,
    examine=_examine,
    serve=_serve,
)

main = commands.group(PROGRAM)
main.add_command(doctor.command(PROGRAM))
main.add_command(probe)
for command in control.commands(PROGRAM):
    main.add_command(command)


@main.command()
@click.argument("capture", metavar="FILE.pcap", type=click.Path(exists=True, dir_okay=False))
@commands.with_flags(FLAGS)
@click.pass_obj
def decode(before: dict[str, Any], /, capture: str, **flags: Any) -> None:
    """Explain the connections in a packet capture, as far as this configuration knows them."""
    from balancer.program import decode as explaining  # noqa: PLC0415

    checked = PROGRAM.configuration(commands.merged(before, flags))
    with failures("balancer", explaining.DecodeError):
        explaining.decode(capture, checked, click.echo)
