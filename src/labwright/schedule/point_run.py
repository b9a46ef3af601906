"""One time point being run: its actions in their order, in one thread, until they end or are told to."""

from __future__ import annotations

import random
import threading
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol, cast

from labwright.plan.point_checks import checked_seconds
from labwright.plan.policies import OnError
from labwright.schedule.actions import Action
from labwright.schedule.coroutines import Coroutine
from labwright.schedule.orders import Due
from labwright.schedule.rows import Outcome, Results, error_of


class Surroundings(Protocol):
    """What a point needs of the schedule that runs it."""

    def begins(self, run: PointRun) -> None:
        """Take note that the first action begins now."""
        ...

    def alarm_in(self, seconds: float, ring: Callable[[], None]) -> Callable[[], None]:
        """Have something done after some seconds; give what calls that off."""
        ...

    def over_budget(self, run: PointRun, label: str, budget: float) -> None:
        """Take note that an action takes longer than it may."""
        ...

    def sleeps(self, run: PointRun, *, is_asleep: bool) -> None:
        """Take note that the point waits for time to pass, or no longer does."""
        ...

    def coroutine(self, awaitable: Awaitable[Any]) -> Coroutine:
        """Run a coroutine on the schedule's own loop."""
        ...


@dataclass(frozen=True, kw_only=True)
class Call:
    """One action of a point, under its label, with the keywords that are passed through to it."""

    label: str
    action: Action
    keywords: Mapping[str, Any]


class PointRun:
    """The actions of one point, and what has come of them so far."""

    def __init__(self, due: Due, calls: Sequence[Call], surroundings: Surroundings) -> None:
        self.due = due
        self.calls = calls
        self.results: dict[str, Any] = {}
        self.left_out: list[str] = []
        self.error: BaseException | None = None
        self.failed = ""
        self.told = ""
        """Why the point was told to end early; empty while it was not."""
        self.cancelled = False
        self._around = surroundings
        self._woken = threading.Event()
        self._is_in_action = False
        """Whether it is an action that lets time pass, which is cut short by a cancellation alone."""
        self._coroutine: Coroutine | None = None
        self._guard = threading.Lock()

    def tell(self, reason: str, *, cancel: bool) -> None:
        """Have the point end early: no further action begins, and with `cancel` what waits is cancelled."""
        with self._guard:
            self.told = self.told or reason
            self.cancelled = self.cancelled or cancel
            coroutine = self._coroutine
            wakes = cancel or not self._is_in_action
        if wakes:
            self._woken.set()
        if cancel and coroutine is not None:
            coroutine.cancel()

    def run(self) -> None:
        """Run the actions; whatever they raise is kept, because a schedule outlives its actions."""
        try:
            for place, call in enumerate(self.calls):
                if self.told:
                    return
                self._run_action(call, is_first=place == 0)
                if self.error is not None:
                    self.failed = call.label
                    return
        except CancelledError:
            self.told = self.told or "the action was cancelled"
        except BaseException as error:  # noqa: BLE001 - a condition, a lock or an action of the user's may raise anything
            self.error = error

    @property
    def given(self) -> Results:
        """What the actions have returned so far."""
        return Results(self.results)

    @property
    def outcome(self) -> Outcome:
        """What has become of the point."""
        if self.error is not None:
            return Outcome.FAILED
        if self.told and len(self.results) + len(self.left_out) < len(self.calls):
            return Outcome.ABORTED
        if self.left_out and not self.results:
            return Outcome.BYPASSED
        return Outcome.SUCCEEDED

    @property
    def reason(self) -> str:
        """Why it has become that."""
        match self.outcome:
            case Outcome.FAILED:
                return f"{self.failed} raised {type(self.error).__name__}" if self.failed else "a condition raised"
            case Outcome.ABORTED:
                return self.told
            case _:
                return f"the condition of {', '.join(self.left_out)} did not hold" if self.left_out else ""

    @property
    def described_error(self) -> dict[str, Any] | None:
        """What was raised, in the shape of errors."""
        return None if self.error is None else error_of(self.error)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of each action, by label."""
        return {call.label: call.action.arguments(call.keywords) for call in self.calls}

    def _run_action(self, call: Call, *, is_first: bool) -> None:
        with call.action.held():
            if self.told:
                return
            if is_first:
                self._around.begins(self)
            if call.action.when is not None and not call.action.when():
                self.left_out.append(call.label)
                return
            self._watched(call)

    def _watched(self, call: Call) -> None:
        """Call the action, and raise an alarm if it takes longer than its budget."""
        budget = call.action.budget
        call_off = None
        if budget is not None:
            call_off = self._around.alarm_in(budget, lambda: self._around.over_budget(self, call.label, budget))
        try:
            self._tried(call)
        finally:
            if call_off:
                call_off()

    def _tried(self, call: Call) -> None:
        """Call the action, again after a failure if the policy says so."""
        policies = self.due.policies
        failures = 0
        while True:
            try:
                self.results[call.label] = self._called(call)
                self.error = None
                return
            except CancelledError:
                raise
            except BaseException as error:  # noqa: BLE001 - an action of the user's may raise anything, SystemExit too
                self.error = error
            failures += 1
            if policies.on_error is not OnError.RETRY or not policies.retry.allows_another(failures) or self.told:
                return
            self._sleep(policies.retry.delay(failures, random.random()))  # noqa: S311 - spreads retries, guards nothing
            if self.told:
                return

    def _called(self, call: Call) -> Any:
        result = call.action.call(call.keywords)
        if isinstance(result, Generator):
            return self._waited(cast("Generator[float, None, Any]", result))
        if not isinstance(result, Awaitable):
            return result
        coroutine = self._around.coroutine(cast("Awaitable[Any]", result))
        with self._guard:
            self._coroutine = coroutine
            is_late = self.cancelled
        if is_late:
            coroutine.cancel()
        return coroutine.result()

    def _waited(self, action: Generator[float, None, Any]) -> Any:
        """Let the seconds pass that an action yields, and give what it returns."""
        with closing(action):
            while True:
                try:
                    seconds = next(action)
                except StopIteration as end:
                    return end.value
                self._sleep(checked_seconds(seconds, "a wait"), is_in_action=True)
                if self.cancelled:
                    raise CancelledError

    def _sleep(self, seconds: float, *, is_in_action: bool = False) -> None:
        with self._guard:
            self._woken.clear()
            self._is_in_action = is_in_action
            is_told = self.cancelled if is_in_action else bool(self.told)
        call_off = self._around.alarm_in(seconds, self._wake_up)
        self._around.sleeps(self, is_asleep=True)
        if not is_told:
            self._woken.wait()
        self._around.sleeps(self, is_asleep=False)
        self._is_in_action = False
        call_off()

    def _wake_up(self) -> None:
        self._around.sleeps(self, is_asleep=False)
        self._woken.set()
