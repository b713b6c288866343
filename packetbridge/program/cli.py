"""The `packetbridge` command. What runs is imported when it runs, so that help is quick."""

from collections import Counter
from collections.abc import Callable, Iterator

import click

from common.adapters.checks import Problem
from common.program import commands, doctor
from common.program.examination import Line
from packetbridge.core import config
from packetbridge.core.config import Config
from packetbridge.program.control import cli as control

HELP = """Serve connections that a balancer hands over, from an unmodified server.

Opens its own connection to the server (nginx, say) and translates between the two, so that every
response goes from the server straight to the client, which sees the virtual IP (VIP).

Without --config the configuration is /etc/l3dsr/packetbridge.toml, or, where that does not exist,
the one of the two-box lab: bridge 192.168.33.20:80, server 192.168.33.30:80, balancer
1:192.168.33.10. Flags override it.
"""

EPILOG = """\b
Examples:
  packetbridge check                   is the configuration right, is this host ready?
  packetbridge doctor                  what of this host is well, what not, and what mends it
  packetbridge                         run, with the configuration in its usual place
  packetbridge --address 10.0.0.11 --backend 10.0.0.21:8080 --balancer 1:10.0.0.1
                                       run without a configuration file

\b
Files:
  /etc/l3dsr/packetbridge.toml         configuration
  /etc/l3dsr/key                       a copy of the balancer's secret, mode 0600
  /run/l3dsr/packetbridge.sock         where a running packetbridge is commanded

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
  1  this host is not ready: each problem and its cure are printed
  2  the configuration or a flag is wrong; for check and keygen also the key file
"""

KEY_ADVICE = "Every balancer and bridge needs the same key: make it once and copy the file.\n"

FLAGS = commands.flags(
    "Where balancers' packets come in.",
    click.option("--address", metavar="ADDRESS", help="The bridge's, where balancers send."),
    commands.PORT,
    click.option("--backend", metavar="ADDR:PORT", help="The server behind the bridge."),
    click.option(
        "--balancer",
        metavar="DSCP:VIP",
        multiple=True,
        help="A balancer in front; for several repeat it. Replaces the configured ones.",
    ),
    click.option(
        "--source",
        type=click.Choice(["client", "bridge"]),
        help="Whose address the server sees.",
    ),
)


def _describe(checked: Config) -> Iterator[str]:
    for backend in checked.backends:
        server = f"{backend.server_address}:{backend.server_port}"
        vips = ", ".join(checked.vip(dscp) for dscp in checked.dscps(backend))
        udp = "UDP " * (backend.protocol == "udp")
        yield f"backend {udp}{backend.address}:{backend.port}: server {server}, for VIP {vips}"


def _problems(checked: Config) -> list[Problem]:
    from packetbridge.program import startup  # noqa: PLC0415

    return startup.problems(checked)


def _load_fast_path(checked: Config) -> object:
    from packetbridge.program.fast_path import KernelPath  # noqa: PLC0415

    return KernelPath(checked.limits.flows, Counter())


def _flush() -> None:
    from common.adapters.firewall import Firewall  # noqa: PLC0415
    from packetbridge.program import fast_path  # noqa: PLC0415

    Firewall("packetbridge", [], []).remove()
    fast_path.clear()


def _host_problems(checked: Config) -> list[Problem]:
    from packetbridge.program import startup  # noqa: PLC0415

    return startup.host_problems(checked)


def _examine(checked: Config) -> Iterator[Line]:
    from packetbridge.program import doctor  # noqa: PLC0415

    return doctor.examine(checked)


def _serve(checked: Config, again: Callable[[], Config]) -> None:
    from packetbridge.program.serve import serve  # noqa: PLC0415

    serve(checked, again)


PROGRAM = commands.Program(
    name="packetbridge",
    standard_file="/etc/l3dsr/packetbridge.toml",
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
    key_advice=KEY_ADVICE,
)

main = commands.group(PROGRAM)
main.add_command(doctor.command(PROGRAM))
for command in control.commands(PROGRAM):
    main.add_command(command)
