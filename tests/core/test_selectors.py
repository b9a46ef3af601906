"""Selectors: the language, its errors, and that what is written reads back to itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labwright.core.errors import SelectorError
from labwright.core.model import Target
from labwright.core.selectors import All, Both, Choice, Either, Label, Named, Value, parse_selector, select

SLOTS = [
    Target(name=f"crate{crate}slot{slot}", labels={"crate": str(crate), "slot": str(slot), "class": "Smurf"})
    for crate in (1, 2)
    for slot in (1, 2, 3)
]
OTHERS = [Target(name="pump-1", labels={"class": "Pump", "owner": "J. Doe"}), Target(name="all-in-one")]
TARGETS = [*OTHERS, *SLOTS]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", "all-in-one crate1slot1 crate1slot2 crate1slot3 crate2slot1 crate2slot2 crate2slot3 pump-1"),
        ("crate=1,slot!=3", "crate1slot1 crate1slot2"),
        ("crate==1 , slot != 3", "crate1slot1 crate1slot2"),
        ("slot in (1,3)", "crate1slot1 crate1slot3 crate2slot1 crate2slot3"),
        ("class=Smurf,slot not in (1, 3)", "crate1slot2 crate2slot2"),
        ("class=Smurf,slot notin (1,3)", "crate1slot2 crate2slot2"),
        ("name=crate1slot*", "crate1slot1 crate1slot2 crate1slot3"),
        ("crate?slot1", "crate1slot1 crate2slot1"),
        ("pump-1", "pump-1"),
        ('"pump-1"', "pump-1"),
        ("pump-1|crate=2,slot!=1", "crate2slot2 crate2slot3 pump-1"),
        ("(crate=1,slot=1)|pump-1", "crate1slot1 pump-1"),
        ('owner="J. Doe"', "pump-1"),
        ("owner='J. D*'", ""),
        ("slot!=1,slot!=2,slot!=3", "all-in-one pump-1"),
        ("slot not in (1,2,3)", "all-in-one pump-1"),
        ("slot=*", "crate1slot1 crate1slot2 crate1slot3 crate2slot1 crate2slot2 crate2slot3"),
        ("all*", "all-in-one"),
        ("nobody", ""),
        ("CRATE=1", ""),
    ],
)
def test_a_selector_chooses_by_name_and_labels(text: str, expected: str) -> None:
    assert " ".join(target.name for target in select(text, TARGETS)) == expected


def test_a_comma_is_and_while_a_bar_is_or_and_binds_tighter() -> None:
    chosen = select("crate=1,slot=1|slot=2", SLOTS)

    assert [target.name for target in chosen] == ["crate1slot1", "crate1slot2"]


def test_square_brackets_are_ordinary_characters() -> None:
    assert parse_selector("a=x[1]*").matches("t", {"a": "x[1]y"})
    assert not parse_selector("a=x[1]*").matches("t", {"a": "x1y"})


def test_the_bare_names_in_a_selector_are_known() -> None:
    assert parse_selector("(pump-1|pump-2),crate=1|pump-*|all").names == {"pump-1", "pump-2"}


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("", 0),
        ("   ", 0),
        ("crate=", 6),
        ("crate=1,,slot=2", 8),
        ("crate=1 slot=2", 8),
        ("slot in 1", 8),
        ("slot in (1", 10),
        ("slot in ()", 9),
        ("slot not 3", 9),
        ("(a|b", 4),
        ("a)", 1),
        ("!=3", 0),
        ('owner="J', 6),
        ("a=b=c", 3),
    ],
)
def test_an_error_points_at_the_character(text: str, position: int) -> None:
    with pytest.raises(SelectorError) as raised:
        parse_selector(text)

    assert raised.value.position == position
    shown, caret = raised.value.message.splitlines()[1:]
    assert shown.removeprefix("  ") == text
    assert caret == f"  {' ' * position}^"


def test_an_error_in_a_long_text_shows_the_part_around_it() -> None:
    with pytest.raises(SelectorError) as raised:
        parse_selector("a=1," * 1_000 + "=" + ",a=1" * 1_000)

    shown, caret = raised.value.message.splitlines()[1:]
    assert len(shown) < 130
    assert shown[caret.index("^")] == "="


def test_parentheses_nested_without_end_are_refused() -> None:
    with pytest.raises(SelectorError, match="nested too deeply"):
        parse_selector("(" * 100_000)


words = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
plain_values = st.builds(Value, words)
globs = st.from_regex(r"[a-z0-9.\[\]-]{0,3}[*?][a-z0-9*?]{0,3}", fullmatch=True).map(
    lambda text: Value(text, is_glob=True)
)
values = plain_values | globs
labels = st.builds(Label, plain_values, st.lists(values, min_size=1, max_size=3).map(tuple), excluded=st.booleans())


def _grouped(parts: st.SearchStrategy[Choice]) -> st.SearchStrategy[Choice]:
    lists = st.lists(parts, min_size=2, max_size=3).map(tuple)
    return st.builds(Both, lists) | st.builds(Either, lists)


choices: st.SearchStrategy[Choice] = st.recursive(
    st.just(All()) | st.builds(Named, values) | labels, _grouped, max_leaves=8
)


@given(choices)
def test_what_is_written_reads_back_to_itself(choice: Choice) -> None:
    selector = parse_selector(str(choice))

    assert selector.choice == choice
    assert parse_selector(str(selector)) == selector


@given(st.text() | st.text("ab=!,|()'\"*? in not", max_size=20))
def test_any_text_is_read_or_refused_with_a_position(text: str) -> None:
    try:
        selector = parse_selector(text)
    except SelectorError as error:
        position = error.position
    else:
        position = 0
        assert parse_selector(str(selector)) == selector
        assert selector.matches("pump", {"a": "1"}) in {True, False}
    assert 0 <= position <= len(text)
