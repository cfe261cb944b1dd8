"""The click group: which commands there are, loaded only when used."""

import importlib
import sys
from dataclasses import dataclass
from importlib import metadata

import click

from penstock.cli.printable import folded
from penstock.errors import PenstockError


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of `penstock --help`.

    Attributes:
        section: the heading that it stands under.
        summary: what the command does, in one sentence.
        extra: the extra that brings what it imports, for the message when that is missing.

    """

    section: str
    summary: str
    extra: str


COMMANDS: dict[str, Entry] = {
    "demo": Entry("Try it", "Show direct calls, FIFO and penstock side by side.", "all"),
    "serve": Entry("Run it", "Run the sidecar that schedules calls to your providers.", "proxy"),
    "health": Entry("Run it", "Say whether the sidecar is well, for a health check.", "proxy"),
    "reload": Entry("Run it", "Have the sidecar read its configuration again.", "proxy"),
    "promote": Entry("Run it", "Let a policy of the shadow hold from now on.", "proxy"),
    "pin": Entry("Run it", "Hold a window, a pause or a weight for a while.", "proxy"),
    "lift": Entry("Run it", "End an upstream's pause, or a pin, at once.", "proxy"),
    "schema": Entry("Run it", "Print the JSON Schema of a file that you write.", "proxy"),
    "batch": Entry("Run it", "Send a file of requests as fast as the provider allows.", "batch"),
    "mock": Entry("Run it", "Run a provider whose hidden limits you choose.", "mock"),
    "explain": Entry("Understand it", "Say why a request was sent, held or refused.", "proxy"),
    "top": Entry("Understand it", "Show who waits and for what, in the terminal.", "proxy"),
    "dashboard": Entry("Understand it", "Show what a decision log tells, as a page.", "proxy"),
    "replay": Entry("Understand it", "Decide recorded traffic again, and compare.", "proxy"),
    "fit": Entry("Understand it", "Fit a provider model to a decision log.", "proxy"),
    "whatif": Entry("Understand it", "Say what another configuration would have done.", "proxy"),
    "predict": Entry("Understand it", "Train, evaluate and report token estimates.", "predict"),
    "simulate": Entry("Study it", "Run a scenario of your own on a virtual clock.", "experiments"),
    "reproduce": Entry(
        "Study it", "Run the paper's experiments and check its claims.", "experiments"
    ),
}
"""Every command, in the order in which a new user meets them.

The summaries stand here and not in the commands, because reading them there would import each
command with all that it needs: `penstock --help` would take seconds.
"""


_OPERATORS = ("health", "reload", "promote", "pin", "lift")
"""Commands that ask a running sidecar; they stand together in `penstock.cli.operator`."""
_WORDED = (click.UsageError, click.BadParameter, click.MissingParameter)
"""Mistakes of usage that click tells in a sentence."""
_EXTRAS = {"ray": "ray"}
"""The extra of a package that a command uses if asked to, and that its own extra does not bring."""


class LazyGroup(click.Group):
    """A group that imports `penstock.cli.NAME` only when NAME is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, without loading any."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name, or None if there is none.

        Raises:
            click.ClickException: a package that it needs is not installed.

        """
        if cmd_name not in COMMANDS:
            return None
        home, name = ("operator", cmd_name) if cmd_name in _OPERATORS else (cmd_name, "command")
        try:
            module = importlib.import_module(f"penstock.cli.{home}")
        except ModuleNotFoundError as missing:
            raise _missing_package(cmd_name, missing) from missing
        command: click.Command = getattr(module, name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands under their headings."""
        width = max(map(len, COMMANDS))
        for section in dict.fromkeys(entry.section for entry in COMMANDS.values()):
            entries = [(name, e) for name, e in COMMANDS.items() if e.section == section]
            rows = [(name.ljust(width), e.summary) for name, e in entries]
            with formatter.section(section):
                formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; what the user can mend is one line, not a traceback.

        Raises:
            click.ClickException: the configuration is wrong, or a package is not installed.

        """
        try:
            return self._invoke(ctx)
        except click.ClickException as error:
            said = folded(error.format_message(), sys.stderr, before=len("Error: "))
            if type(error) is click.ClickException:
                raise click.ClickException(said) from error.__cause__
            if isinstance(error, click.UsageError) and type(error) in _WORDED:
                raise click.UsageError(said, error.ctx) from error.__cause__
            raise

    def _invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as missing:
            raise _missing_package(ctx.invoked_subcommand or "", missing) from missing
        except PenstockError as mistake:
            raise click.ClickException(str(mistake)) from mistake
        except KeyboardInterrupt:  # click's own "Aborted!" ends with 1, as if it had failed
            click.echo("\nStopped before its end.", err=True)
            raise SystemExit(130) from None


def _missing_package(command: str, missing: ModuleNotFoundError) -> Exception:
    """Return what to raise when `command` could not import something.

    A missing module of our own is our mistake, so it stays what it was, traceback included.
    """
    package = (missing.name or "").partition(".")[0]
    if package in ("", "penstock") or command not in COMMANDS:
        return missing
    extra = _EXTRAS.get(package, COMMANDS[command].extra)
    return click.ClickException(
        f"`penstock {command}` needs the package {package}, which is not installed. "
        f"It comes with an extra: pip install 'penstock[{extra}]'"
    )


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    # Read from the installed distribution, so that there is one place to change it.
    if wanted and not ctx.resilient_parsing:
        click.echo(f"penstock {metadata.version('penstock')}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and leave.",
)
def group() -> None:
    """Schedule calls to LLM APIs whose capacity you cannot see.

    penstock stands between your programs and a provider. It decides which call goes next, how
    many may be under way, and which must wait or be refused, and it can say why.

    Start with `penstock demo`. `penstock COMMAND --help` explains each command.
    """
