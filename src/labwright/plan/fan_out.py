"""How something is done on many targets: in which order, how many at once, and when enough is enough. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from labwright.core.errors import UsageError
from labwright.core.model import Model

SHARE = re.compile(r"(?:all|[0-9]{1,9}|[0-9]{1,3}(?:\.[0-9]{1,6})?%)")
LONGEST_S = 366 * 86_400.0

T = TypeVar("T")


class OnFailure(StrEnum):
    """What becomes of the other targets once more have failed than the failure budget allows."""

    CONTINUE = "continue"
    """What runs goes on; where there is a budget, nothing more is started."""
    ABORT = "abort"
    """What runs is aborted, and nothing more is started."""


def _share(value: object) -> str:
    text = str(value).strip()
    if isinstance(value, bool) or not SHARE.fullmatch(text) or (text.endswith("%") and float(text[:-1]) > 100):  # noqa: PLR2004 - percent
        raise ValueError(f"{value!r} is no number of targets: write 7, 25% or all")
    return text


def _shares(value: object) -> object:
    return [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Share = Annotated[str, BeforeValidator(_share)]
"""A number of targets: `7`, `25%` or `all`."""
Seconds = Annotated[float, Field(ge=0, le=LONGEST_S, allow_inf_nan=False)]


class FanOut(Model):
    """How an operation or a task is done on many targets.

    `timeout_s` is each target's deadline, in seconds from its start; None leaves it to the operation. `quorum` is how
    many must succeed (a percentage is rounded up). All are started at once, or at most `parallel` at a time, or one
    after the other (`serial`), `settle_s` seconds apart; in `waves`, each of which begins when the one before has
    ended: `1,10%,all`, the last size is repeated until nobody is left. Once more targets have failed than
    `failure_budget` (a percentage is rounded down) nothing more is started; in waves it is 0 unless it is given, and
    with `on_failure` abort, too. What has failed is tried again `retries` times. A target that goes away in the middle
    has `return_within_s` to come back with its session.
    """

    timeout_s: Annotated[float, Field(gt=0, le=LONGEST_S, allow_inf_nan=False)] | None = None
    quorum: Share = "all"
    serial: bool = False
    settle_s: Seconds = 0.0
    parallel: Annotated[int, Field(ge=1)] | None = None
    waves: Annotated[tuple[Share, ...], BeforeValidator(_shares)] = ()
    failure_budget: Share | None = None
    on_failure: OnFailure = OnFailure.CONTINUE
    retries: Annotated[int, Field(ge=0, le=1000)] = 0
    return_within_s: Seconds = 30.0

    @model_validator(mode="after")
    def _fits_together(self) -> FanOut:
        if self.serial and self.parallel not in {None, 1}:
            raise ValueError("serial means one at a time, and parallel says otherwise")
        if self.settle_s and not self.serial:
            raise ValueError("settle_s is the pause between two targets, so it needs serial")
        if self.serial and self.waves:
            raise ValueError("serial means one after the other, and waves mean many at once: leave one of them out")
        if any(_is_nothing(share) for share in self.waves):
            raise ValueError("a wave of 0 targets never ends")
        if _is_nothing(self.quorum):
            raise ValueError("with a quorum of 0 it succeeds whatever happens: leave it out, or name at least 1")
        return self

    @classmethod
    def given(cls, **options: Any) -> FanOut:
        """Make one of options that somebody gave; one that is None has its default.

        Raises:
            UsageError: an option is not known, or not valid.
        """
        chosen = {name: value for name, value in options.items() if value is not None}
        if unknown := sorted(chosen.keys() - cls.model_fields.keys()):
            raise UsageError(
                f"a fleet has no option {', '.join(unknown)}",
                because=f"its options are: {', '.join(cls.model_fields)}",
                cure="parameters of the operation are given in the call",
            )
        try:
            return cls.model_validate(chosen)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False, include_context=False)
            wrong = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}".removeprefix(": ") for each in found]
            raise UsageError(
                "the options of the fleet are not valid",
                because="; ".join(wrong).replace("Value error, ", ""),
                cure="for example: quorum=7, waves=1,10%,all, failure_budget=5%",
            ) from None

    def needed(self, total: int) -> int:
        """Tell how many of so many targets must succeed.

        Raises:
            UsageError: more than there are.
        """
        needed = _count(self.quorum, total, math.ceil)
        if needed > total:
            raise UsageError(
                f"the quorum of {needed} cannot be reached",
                because=f"{total} {'target is' if total == 1 else 'targets are'} chosen",
                cure="choose more targets, or a smaller quorum; a percentage always fits",
            )
        return needed

    def allowed_failures(self, total: int) -> int:
        """Tell how many of so many targets may fail before nothing more is started."""
        if self.failure_budget is not None:
            return min(_count(self.failure_budget, total, math.floor), total)
        return 0 if self.waves or self.on_failure is OnFailure.ABORT else total

    @property
    def at_once(self) -> int | None:
        """How many may go on at a time; None for any number."""
        return 1 if self.serial else self.parallel

    def in_waves(self, targets: Sequence[T]) -> Iterator[Sequence[T]]:
        """Divide targets into waves; without waves all are one.

        >>> [len(wave) for wave in FanOut(waves="1,10%,all").in_waves(range(200))]
        [1, 20, 179]
        >>> [len(wave) for wave in FanOut(waves="40%").in_waves(range(5))]
        [2, 2, 1]
        """
        sizes = [max(1, _count(share, len(targets), math.ceil)) for share in self.waves] or [len(targets)]
        begun = 0
        number = 0
        while begun < len(targets):
            size = sizes[min(number, len(sizes) - 1)]
            yield targets[begun : begun + size]
            begun, number = begun + size, number + 1


def _is_nothing(share: str) -> bool:
    return share != "all" and not float(share.removesuffix("%"))


def _count(share: str, total: int, rounded: Any) -> int:
    """Tell how many targets a share of so many is; what is written as a percentage is counted exactly."""
    if share == "all":
        return total
    if not share.endswith("%"):
        return int(share)
    whole, _, part = share[:-1].partition(".")
    scale = 10 ** len(part)
    exact = int(whole + part) * total
    return exact // (100 * scale) if rounded is math.floor else -(-exact // (100 * scale))
