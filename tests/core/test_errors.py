"""An error tells what, because of what, and what to try, wherever Python shows it."""

from __future__ import annotations

import pickle
import traceback

import pytest

from labwright.core.errors import LabwrightError, TransientError, UsageError
from labwright.core.model import ErrorRecord


def shown(error: Exception) -> str:
    return "".join(traceback.format_exception(error))


def test_a_traceback_shows_why_and_what_to_try() -> None:
    told = shown(UsageError("no such point", because="there are 3", cure="take 1, 2 or 3"))
    assert told.endswith("no such point\nbecause: there are 3\ntry: take 1, 2 or 3\n")


def test_a_traceback_has_no_line_for_what_is_not_said() -> None:
    assert shown(TransientError("busy")).endswith("TransientError: busy\n")


def test_what_is_reworded_is_shown_in_the_new_words_and_other_notes_stay() -> None:
    error = LabwrightError("gone", because="nobody knows", cure="look")
    error.add_note("seen on bench 2")
    error.reword(cure="look there")
    assert shown(error).endswith("gone\nbecause: nobody knows\ntry: look there\nseen on bench 2\n")


def test_an_error_comes_whole_through_pickle() -> None:
    error = pickle.loads(pickle.dumps(LabwrightError("gone", because="nobody knows", cure="look")))
    assert shown(error).endswith("gone\nbecause: nobody knows\ntry: look\n")


def test_a_record_says_it_once() -> None:
    with pytest.raises(LabwrightError) as raised:
        raise LabwrightError("gone", because="nobody knows", cure="look")
    record = ErrorRecord.of(raised.value, with_traceback=True)
    assert (record.because, record.cure) == ("nobody knows", "look")
    assert record.traceback.endswith("LabwrightError: gone\n")
