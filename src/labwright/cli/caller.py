"""Who calls a command: for which site, and how they want to be answered; and how commands are declared.

Every command takes `--site` and `--json`, before or after its name. A command's function does not declare them: it
takes a `Caller` first, and `command` puts the two options in its place.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import re
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

import typer

from labwright.cli.failures import INTERRUPTED
from labwright.cli.output import Output
from labwright.core.errors import UnreachableError

if TYPE_CHECKING:
    from labwright.client import AsyncLab
    from labwright.run.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")

SiteOption = Annotated[
    Path | None,
    typer.Option(
        "--site",
        metavar="DIR",
        help="The site's folder; default: LABWRIGHT_SITE, or the current folder.",
        show_default=False,
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", metavar="", help="Print one JSON document (JSON lines for streams).", show_default=False),
]


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The site that a command is for, and its output."""

    site: Path | None = None
    output: Output = field(default_factory=Output)

    @classmethod
    def of(cls, context: typer.Context) -> Caller:
        """Give who has called so far: as the options before the command's name say."""
        return context.obj if isinstance(context.obj, Caller) else cls()

    def given(self, *, site: Path | None, as_json: bool) -> Caller:
        """Add what further options say."""
        self.output.as_json = self.output.as_json or as_json
        return Caller(site=site or self.site, output=self.output)

    def settings(self, *, overrides: Mapping[str, object] | None = None) -> Settings:
        """Load the settings of the site; `overrides` are flags, by the key that they stand for.

        Raises:
            UsageError: the folder does not exist, or its file cannot be read.
        """
        from labwright.run.settings import load_settings

        return load_settings(self.site, os.environ, overrides=overrides)

    def note_missing_file(self, settings: Settings) -> None:
        """Tell people of a folder that has no settings: it may be the wrong one."""
        if not (settings.folder / "labwright.toml").exists():
            self.output.talk(f"note: no labwright.toml in {settings.folder}: is this the site's folder?")

    def run(self, work: Coroutine[Any, Any, T], *, verbose: bool = False) -> T:
        """Run something asynchronous to its end; logs go to standard error."""
        import asyncio

        from labwright.cli.logs import configure_logs

        configure_logs(as_json=self.output.as_json, verbose=verbose)
        return asyncio.run(work)

    def with_lab(self, ask: Callable[[AsyncLab], Awaitable[T]]) -> T:
        """Open the lab and do something with it.

        Raises:
            UnreachableError: there is none.
        """

        async def asked() -> T:
            from labwright.client import connect_async

            settings = self.settings()
            with _outside_of_sites(settings):
                async with connect_async(settings=settings) as lab:
                    return await ask(lab)

        return self.run(asked())

    def ask(self, question: str, **arguments: Any) -> Any:
        """Ask the lab one question."""
        return self.with_lab(lambda lab: lab.ask(question, **arguments))


@contextlib.contextmanager
def _outside_of_sites(settings: Settings) -> Generator[None]:
    """Where no lab answers, and the folder is no site's: tell how to name the one that was meant."""
    try:
        yield
    except UnreachableError as error:
        if not settings.nats.url and not (settings.folder / "labwright.toml").exists():
            error.reword(cure=f"{error.cure}; or name the site's folder: --site DIR")
        raise


@contextlib.contextmanager
def ended_by_interruption() -> Generator[None]:
    """Have Ctrl-C be the usual end of a command that follows something: it leaves without a word."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def group(help_text: str) -> typer.Typer:
    """Make a noun, under which its commands stand; alone it shows its help."""
    app = typer.Typer(help=help_text, add_completion=False, rich_markup_mode="rich", invoke_without_command=True)

    @app.callback()
    def shown_alone(context: typer.Context) -> None:
        show_help_if_alone(context)

    return app


def show_help_if_alone(context: typer.Context) -> None:
    """Show the help of a noun that was called without a verb, which is a usage error."""
    if context.invoked_subcommand is None:
        if help_text := context.get_help():  # with rich, it has printed itself
            typer.echo(help_text)
        raise typer.Exit(2)


def escaped(text: str) -> str:
    """Keep square brackets from being read as markup."""
    return re.sub(r"\[(?=[a-zA-Z#/@])", r"\\[", text)


def command(
    app: typer.Typer, name: str | None = None, *, panel: str | None = None, hidden: bool = False
) -> Callable[[Callable[Concatenate[Caller, P], None]], Callable[Concatenate[Caller, P], None]]:
    """Declare a function as a command with the options that all commands take."""

    def register(function: Callable[Concatenate[Caller, P], None]) -> Callable[Concatenate[Caller, P], None]:
        help_text = escaped(inspect.cleandoc(function.__doc__ or ""))
        app.command(name, help=help_text, rich_help_panel=panel, hidden=hidden)(_with_options(function))
        return function

    return register


def _show_no_type_of_flags(hint: Any) -> None:
    if get_origin(hint) is Annotated and get_args(hint)[0] is bool:
        for option in get_args(hint)[1:]:
            option.metavar = ""  # else the help says <bool>


def _with_options(function: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(function)
    def called(context: typer.Context, *, site: Path | None, as_json: bool, **options: Any) -> None:
        try:
            function(Caller.of(context).given(site=site, as_json=as_json), **options)
        except BrokenPipeError as error:  # not of our output; typer would end without a word
            raise UnreachableError(
                "a connection broke", because=str(error), cure="try again; labwright doctor"
            ) from error

    hints = get_type_hints(function, include_extras=True)
    for hint in hints.values():
        _show_no_type_of_flags(hint)
    own = list(inspect.signature(function).parameters.values())[1:]
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter("site", keyword, default=None, annotation=SiteOption),
        inspect.Parameter("as_json", keyword, default=False, annotation=JsonOption),
    ]
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    parameters = [context, *(p.replace(kind=keyword, annotation=hints[p.name]) for p in own), *added]
    called.__dict__.pop("__wrapped__")
    called.__dict__["__signature__"] = inspect.Signature(parameters, return_annotation=None)
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return called
