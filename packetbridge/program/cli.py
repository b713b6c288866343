"""The `packetbridge` command. What runs is imported when it runs, so that help is quick."""

from typing import Any

import click

from common import __version__
from common.adapters.aside import aside
from common.adapters.checks import Problem
from common.program import commands, logs
from packetbridge.core import config

STANDARD_FILE = "/etc/l3dsr/packetbridge.toml"

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
  packetbridge                         run, with the configuration in its usual place
  packetbridge --address 10.0.0.11 --backend 10.0.0.21:8080 --balancer 1:10.0.0.1
                                       run without a configuration file

\b
Files:
  /etc/l3dsr/packetbridge.toml         configuration
  /etc/l3dsr/key                       a copy of the balancer's secret, mode 0600

\b
Exit codes:
  0  all is well, or the program was told to stop
  1  this host is not ready: each problem and its cure are printed
  2  the configuration, a flag or the key file is wrong
"""

FLAGS = (
    click.option("--config", "file", metavar="FILE", help="Configuration, a TOML file."),
    click.option("--interface", metavar="NAME", help="Where balancers' packets come in."),
    click.option("--address", metavar="ADDRESS", help="The bridge's, where balancers send."),
    click.option("--port", type=click.IntRange(1, 65535), help="Port that clients connect to."),
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
@click.version_option(__version__, prog_name="packetbridge", message="%(prog)s %(version)s")
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
    for backend in checked.backends:
        server = f"{backend.server_address}:{backend.server_port}"
        vips = ", ".join(checked.vip(dscp) for dscp in checked.dscps(backend))
        click.echo(f"backend {backend.address}:{backend.port}: server {server}, for VIP {vips}")
    if commands.is_root():
        from packetbridge.program import startup  # noqa: PLC0415

        commands.show(startup.host_problems(checked))
    click.echo("the configuration is valid")


@main.command()
@click.argument("file", default="/etc/l3dsr/key")
def keygen(file: str) -> None:
    """Make a new secret key in FILE (default /etc/l3dsr/key), readable by its owner only.

    Every balancer and bridge needs the same key: make it once and copy the file.
    A file that exists is not overwritten; the exit code is then 2.
    """
    commands.keygen(file)


def _run(checked: config.Config) -> None:
    from packetbridge.program.serve import serve  # noqa: PLC0415

    commands.refuse(aside(_problems, checked))
    logs.setup(checked.log_level)
    with commands.failures("packetbridge", *commands.HOST_ERRORS):
        serve(checked)


def _problems(checked: config.Config) -> list[Problem]:
    """What this host lacks; in a child process, as it loads much that serving does not need."""
    from packetbridge.program import startup  # noqa: PLC0415

    return startup.problems(checked)


def _configuration(flags: dict[str, Any]) -> config.Config:
    """The configuration that the flags ask for; raises commands.UsageProblems."""
    others = {name: value for name, value in flags.items() if name != "file"}
    found = commands.configuration(flags["file"], STANDARD_FILE, config.parse, config.default)
    with commands.usage_problems():
        return config.override(found, **others)
