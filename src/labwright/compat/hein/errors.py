"""Labwright's errors that scripts for hein_control may catch under the names of Python's own."""

from __future__ import annotations

from labwright.core.errors import ConflictError, NotFoundError, UsageError


class WrongValueError(UsageError, ValueError):
    """A value that can never work."""


class WrongKindError(UsageError, TypeError):
    """Something that cannot be called was given as an action."""


class UnknownError(NotFoundError, KeyError):
    """Nothing has that name or uuid."""

    __str__ = Exception.__str__  # a KeyError shows its message in quotes


class AlreadyTriggeredError(ConflictError, SystemError):
    """A time point happens once."""


class KilledError(ConflictError, RuntimeError):
    """A sequence that was killed does not start again."""


class OffsetWarning(UserWarning):
    """hein_control would have put a time point elsewhere, because of one of its known defects."""
