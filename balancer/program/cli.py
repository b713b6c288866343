"""The `balancer` command. What runs is imported when it runs, so that help and errors are quick."""

from typing import Any

import click

from balancer.core import config
from common import __version__
from common.adapters.aside import aside
from common.adapters.checks import Problem
from common.program import commands, logs

STANDARD_FILE = "/etc/l3dsr/balancer.toml"

HELP = """Balance TCP connections over packetbridges by what their first request asks for.

Owns the virtual IP (VIP), answers the client's handshake, reads the request, picks a backend by
its hash and hands the connection over; the backend's responses go straight to the client.

Without --config the configuration is /etc/l3dsr/balancer.toml, or, where that does not exist, the
one of the two-box lab: VIP 192.168.33.10, port 80, one bridge 192.168.33.20. Flags override it.
"""

EPILOG = """\b
Examples:
  balancer keygen                      make the key, then copy it to each bridge
  balancer check                       is the configuration right, is this host ready?
  balancer                             run, with the configuration in its usual place
  balancer --vip 10.0.0.1 --bridge 10.0.0.11 --bridge 10.0.0.12
                                       run without a configuration file

\b
Files:
  /etc/l3dsr/balancer.toml             configuration
  /etc/l3dsr/key                       secret shared with the bridges, mode 0600

\b
Exit codes:
  0  all is well, or the program was told to stop
  1  this host is not ready or a file cannot be used: each problem and its cure are printed
  2  the configuration, a flag or the key file is wrong
"""

FLAGS = (
    click.option("--config", "file", metavar="FILE", help="Configuration, a TOML file."),
    click.option("--interface", metavar="NAME", help="Where clients' packets come in."),
    click.option("--vip", metavar="ADDRESS", help="Address that clients connect to."),
    click.option("--port", type=click.IntRange(1, 65535), help="Port that clients connect to."),
    click.option("--dscp", type=click.IntRange(1, 63), help="Tells the bridges which VIP it is."),
    click.option(
        "--bridge",
        metavar="ADDRESS",
        multiple=True,
        help="Address of a packetbridge; for several repeat it. Replaces the backends.",
    ),
    click.option(
        "--datapath",
        type=click.Choice(["auto", "ebpf", "nfqueue"]),
        help="auto: ebpf where it loads, else nfqueue.",
    ),
    click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        help="Least important messages that are logged.",
    ),
)


@click.group(
    invoke_without_command=True,
    context_settings=commands.HELP,
    help=HELP,
    epilog=EPILOG,
)
@commands.with_flags(FLAGS)
@click.version_option(__version__, prog_name="balancer", message="%(prog)s %(version)s")
@click.pass_context
def main(context: click.Context, /, **flags: Any) -> None:
    context.obj = flags
    if context.invoked_subcommand is None:
        _run(_configuration(flags))


@main.command()
@commands.with_flags(FLAGS)
@click.pass_obj
def check(before: dict[str, Any], /, **flags: Any) -> None:
    """Check the configuration and the key; start nothing.

    As root also tell what about this host would prevent a start. The exit code is 2 if the
    configuration, a flag or the key file is wrong, else 0.
    """
    checked = _configuration(commands.merged(before, flags))
    commands.check_key(checked.key_file)
    for service in checked.services:
        names = ", ".join(backend.name for backend in service.backends)
        click.echo(f"service {service.name}: DSCP {service.dscp}, backends {names}")
    if commands.is_root():
        from balancer.program import startup  # noqa: PLC0415

        commands.show(startup.host_problems(checked))
    click.echo("the configuration is valid")


@main.command()
@click.argument("file", default="/etc/l3dsr/key")
def keygen(file: str) -> None:
    """Make a new secret key in FILE (default /etc/l3dsr/key), readable by its owner only.

    A file that exists is not overwritten; the exit code is then 2.
    """
    commands.keygen(file)


@main.command()
@click.argument("capture", metavar="FILE.pcap", type=click.Path(exists=True, dir_okay=False))
@commands.with_flags(FLAGS)
@click.pass_obj
def decode(before: dict[str, Any], /, capture: str, **flags: Any) -> None:
    """Explain the connections in a packet capture, as far as this configuration knows them."""
    from balancer.program import decode as explaining  # noqa: PLC0415

    checked = _configuration(commands.merged(before, flags))
    with commands.failures("balancer", explaining.DecodeError):
        explaining.decode(capture, checked, click.echo)


def _run(checked: config.Config) -> None:
    from balancer.program.serve import serve  # noqa: PLC0415

    commands.refuse(aside(_problems, checked))
    logs.setup(checked.log_level)
    with commands.failures("balancer", *commands.HOST_ERRORS):
        serve(checked)


def _problems(checked: config.Config) -> list[Problem]:
    """What this host lacks; in a child process, as it loads much that serving does not need."""
    from balancer.program import startup  # noqa: PLC0415

    return startup.problems(checked)


def _configuration(flags: dict[str, Any]) -> config.Config:
    """The configuration that the flags ask for; raises commands.UsageProblems."""
    others = {name: value for name, value in flags.items() if name != "file"}
    found = commands.configuration(flags["file"], STANDARD_FILE, config.parse, config.default)
    with commands.usage_problems():
        return config.override(found, **others)
