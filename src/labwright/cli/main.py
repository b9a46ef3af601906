"""The entry of the command line: all commands, and the border where every error becomes words and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from labwright import __version__
from labwright.cli import (
    abort,
    agents,
    audit,
    call,
    claims,
    decisions,
    demo,
    events,
    facts,
    feeds,
    files,
    host,
    lab,
    plan,
    pools,
    rules,
    run,
    runs,
    schedules,
    sessions,
    site,
    targets,
    tasks,
    users,
)
from labwright.cli.caller import Caller, JsonOption, SiteOption, show_help_if_alone
from labwright.cli.failures import BROKEN_PIPE, INTERRUPTED, exit_code, unwrapped
from labwright.cli.output import Output, ReaderGoneError
from labwright.core.errors import UsageError

NAME = "labwright"

app = typer.Typer(
    name=NAME,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{NAME} {__version__}")
        raise typer.Exit


VersionOption = Annotated[
    bool,
    typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.", show_default=False),
]


@app.callback()
def root(
    context: typer.Context,
    site: SiteOption = None,
    as_json: JsonOption = False,
    version: VersionOption = False,  # noqa: ARG001 - its callback has answered
) -> None:
    """Run experiments and facilities without a person in the loop.

    Events are decided by rules, rules ask for runs of tasks, and the journal remembers all of it.

    First steps:
      labwright demo                  see the whole loop on an example
      labwright new site mylab        begin a site of your own
      labwright plan event.json       what would happen, and why
      labwright serve                 start the lab

    Data go to standard output, talk to standard error; every command takes --json.

    Exit codes: 0 done, 1 a run or check failed, 2 usage, 3 not found, 4 not allowed, 5 lab unreachable, 6 conflict,
    124 waited long enough, 130 interrupted.
    """
    context.obj = Caller.of(context).given(site=site, as_json=as_json)
    show_help_if_alone(context)


demo.add_to(app, panel="Begin")
site.add_to(app, panel="Begin")
lab.add_to(app, panel="Keep a lab")
host.add_to(app, panel="Keep a lab")
users.add_to(app, panel="Keep a lab")
audit.add_to(app, panel="Keep a lab")
plan.add_to(app, panel="Work")
events.add_to(app, panel="Work")
run.add_to(app, panel="Work")
runs.add_to(app, panel="Work")
call.add_to(app, panel="Work")
abort.add_to(app, panel="Work")
schedules.add_to(app, panel="Work")
claims.add_to(app, panel="Work")
agents.add_to(app, panel="Instruments")
sessions.add_to(app, panel="Instruments")
feeds.add_to(app, panel="Instruments")
files.add_to(app, panel="Instruments")
decisions.add_to(app, panel="Look")
facts.add_to(app, panel="Look")
tasks.add_to(app, panel="Look")
rules.add_to(app, panel="Look")
targets.add_to(app, panel="Look")
pools.add_to(app, panel="Look")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    output = Output(as_json="--json" in given)  # also for what is wrong with the command line itself
    try:
        return _run(given, output)
    except KeyboardInterrupt:
        output.talk("interrupted")
        return INTERRUPTED
    except ReaderGoneError:
        output.hush()
        return BROKEN_PIPE
    except typer.TyperException as error:
        output.error(_usage_error(error))
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the border: whatever went wrong is shown in the one shape
        only = unwrapped(error)
        output.error(only)
        return exit_code(only)


def _run(arguments: Sequence[str], output: Output) -> int:
    code: object = app(list(arguments), prog_name=NAME, standalone_mode=False, obj=Caller(output=output))
    sys.stdout.flush()
    return code if isinstance(code, int) else 0


def _usage_error(error: typer.TyperException) -> UsageError:
    context: object = getattr(error, "ctx", None)
    path = getattr(context, "command_path", NAME)
    message = error.format_message().replace("Value error, ", "")  # a word of pydantic's
    return UsageError(message, cure=f"{path} --help")
