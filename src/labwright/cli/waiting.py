"""`--wait`: follow what comes of an event or a request to its end, and show on standard error how far it has come."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from labwright.cli.output import Output, cell, printable, styled, table
from labwright.cli.pages import counted, duration, waits
from labwright.core.errors import LabwrightError, UnreachableError, WaitTimeoutError
from labwright.core.model import Run, RunState, StepState

if TYPE_CHECKING:
    from rich.console import RenderableType

    from labwright.client import AsyncLab, Update

MOST_ROWS = 20
REFRESH_PER_S = 8
WORDS_EVERY_S = 1.0


@dataclass(kw_only=True)
class Waited:
    """What came of waiting: the runs as they were at the end of it, and the decision if an event was waited for."""

    runs: dict[str, Run] = field(default_factory=dict[str, Run])
    decision: dict[str, Any] | None = None
    timeout: WaitTimeoutError | None = None

    @property
    def has_failed(self) -> bool:
        """Tell whether a run ended otherwise than by succeeding, or a decision was held."""
        ended = {run.state for run in self.runs.values() if run.state.is_final}
        return bool(ended - {RunState.SUCCEEDED}) or bool(self.decision and self.decision["held"])

    def exit_code(self) -> int:
        """Tell the exit code."""
        return 1 if self.has_failed else 0


@contextlib.contextmanager
def about(what: str, *, cure: str) -> Generator[None]:
    """Have an error of waiting name what was waited for; `cure` is for one that was set aside."""
    try:
        yield
    except LabwrightError as error:
        if what not in error.message:
            error.message = f"{what}: {error.message}"
        if not isinstance(error, UnreachableError) and cure not in error.cure:
            error.reword(cure=f"{error.cure}, then {cure}" if error.cure else cure)
        raise


async def wait(output: Output, lab: AsyncLab, updates: AsyncIterator[Update], timeout_s: float | None) -> Waited:
    """Wait for all of it; a time-out is part of what is given back.

    Raises:
        LabwrightError: the event was set aside, or the journal is gone.
    """
    waited = Waited()
    show = Progress(output, waited)
    with show.live():
        async with lab.progress(show.word):
            try:
                async with aclosing(_noted(updates, show)) as noted:
                    await lab.wait(noted, timeout_s=timeout_s)
            except WaitTimeoutError as error:
                waited.timeout = error
    return waited


async def _noted(updates: AsyncIterator[Update], show: Progress) -> AsyncGenerator[Update]:
    try:
        async for update in updates:
            show.update(update)
            yield update
    finally:
        if isinstance(updates, AsyncGenerator):
            await updates.aclose()


class Progress:
    """Shows how runs come along: as a table that changes at a terminal, and else as a line for each change."""

    def __init__(self, output: Output, waited: Waited) -> None:
        self._output = output
        self._waited = waited
        self._words: dict[str, str] = {}
        self._said: dict[str, str] = {}
        self._word_at: dict[str, float] = {}
        self._is_live = False

    @contextlib.contextmanager
    def live(self) -> Generator[None]:
        """Show it while this lasts."""
        if not self._output.is_live:
            yield
            return
        from rich.live import Live

        self._is_live = True
        with Live(console=self._output.console_of_talk, get_renderable=self._table, refresh_per_second=REFRESH_PER_S):
            yield

    def update(self, update: Update) -> None:
        """Take note of what happened."""
        if update.decided is not None:
            self._waited.decision = update.decided
            self._say("decision", decision_line(update.decided))
        if update.run is not None:
            self._waited.runs[update.run.id] = update.run
            self._say(update.run.id, run_line(update.run))

    def word(self, word: Mapping[str, Any]) -> None:
        """Take note of what a step says of its progress."""
        run = self._waited.runs.get(str(word["run"]))
        if run is None:
            return
        self._words[run.id] = progress_words(word)
        if time.monotonic() - self._word_at.get(run.id, 0) >= WORDS_EVERY_S:
            self._word_at[run.id] = time.monotonic()
            self._say(run.id, f"{run_line(run)}: {self._words[run.id]}")

    def _say(self, what: str, text: str) -> None:
        if not self._is_live and self._said.get(what) != text:
            self._said[what] = text
            self._output.talk(text)

    def _table(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        runs = sorted(self._waited.runs.values(), key=lambda run: run.state.is_final)
        parts: list[RenderableType] = []
        if self._waited.decision is not None:
            parts.append(Text(printable(decision_line(self._waited.decision))))
        rows = ([cell(value) for value in self._row(run)] for run in runs[:MOST_ROWS])
        parts.append(table(("run", "task", "target", "state", "step"), rows))
        if len(runs) > MOST_ROWS:
            parts.append(Text(f"and {len(runs) - MOST_ROWS} more; {counts(runs)}"))
        return Group(*parts)

    def _row(self, run: Run) -> Iterable[object]:
        doing = self._words.get(run.id) if run.state is RunState.RUNNING else None
        return run.id, run.task, run.target, run.state.value, " ".join(filter(None, (_step_words(run), doing)))


def progress_words(word: Mapping[str, Any]) -> str:
    """Write what a step says of its progress."""
    share = f"{word['done']:g} of {word['total']:g}" if word.get("total") is not None else f"{word['done']:g}"
    return f"{share} {word.get('text') or ''}".strip()


def run_line(run: Run) -> str:
    """Say in one line how far a run has come."""
    where = f" on {run.target}" if run.target else ""
    return f"{run.id} {run.task}{where}: {run.state.value}" + (f", {words}" if (words := _step_words(run)) else "")


def decision_line(decision: Mapping[str, Any]) -> str:
    """Say in one line what was decided."""
    fired = [rule["rule"] for rule in decision["rules"] if rule["outcome"] == "fired"]
    failed = sum(rule["outcome"] == "failed" for rule in decision["rules"])
    rules, requests = counted(len(decision["rules"]), "rule"), counted(len(decision["requests"]), "request")
    text = f"decided: {len(fired)} of {rules} fired, {requests}"
    return text + (f", {counted(failed, 'rule')} failed" if failed else "") + (", held" if decision["held"] else "")


def counts(runs: Iterable[Run]) -> str:
    """Count runs by state."""
    found: dict[str, int] = {}
    for run in runs:
        found[run.state.value] = found.get(run.state.value, 0) + 1
    return ", ".join(f"{number} {state}" for state, number in found.items()) or "no runs"


def show_end(output: Output, waited: Waited) -> None:
    """Tell people how it ended, what failed and where to look next."""
    runs = list(waited.runs.values())
    if waited.decision is not None:
        _show_failed_rules(output, waited.decision)
    output.talk(styled(counts(runs), "bold"))
    for run in runs:
        if run.state.is_final and run.state is not RunState.SUCCEEDED:
            said = f": {run.error.message}" if run.error else ""
            output.talk(styled(f"{run.id} {run.task} {run.state.value}{said}", "red"))
            output.talk(f"next: labwright runs show {run.id}")


def _show_failed_rules(output: Output, decision: Mapping[str, Any]) -> None:
    failed = [rule for rule in decision["rules"] if rule["outcome"] == "failed"]
    for rule in failed:
        said = f": {rule['error']['message']}" if rule["error"] else ""
        output.talk(styled(f"rule {rule['rule']} failed{said}", "red"))
    if failed:
        output.talk(f"next: labwright decisions show {decision['id']}")


def run_fields(run: Run) -> dict[str, Any]:
    """Give a run as its JSON has it."""
    return run.model_dump(mode="json", by_alias=True, exclude={"content", "waits"})


def _step_words(run: Run) -> str:
    if run.state.is_final:
        error = run.error.message if run.error and run.state is not RunState.SUCCEEDED else ""
        return error or run.note or (f"took {duration(run.started_at, run.ended_at)}" if run.started_at else "")
    if run.state is RunState.RETRYING:
        error = run.error or next((step.error for step in reversed(run.steps) if step.error), None)
        because = f": {error.message}" if error else ""
        return f"next attempt at {run.next_attempt_at:%H:%M:%S} UTC{because}" if run.next_attempt_at else ""
    if run.waiting_for is not None:
        return waits(run.waiting_for.detail or run.waiting_for.kind)
    done = [step for step in run.steps if step.state in {StepState.SUCCEEDED, StepState.SKIPPED}]
    return f"{len(done)} of {len(run.steps)} steps done" if run.steps else ""
