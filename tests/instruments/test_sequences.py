"""Counting what happened to a publisher's messages."""

import random

from hypothesis import given
from hypothesis import strategies as st

from labwright.instruments.pysmurf.packets import Packet
from labwright.instruments.pysmurf.sequences import MOST_PUBLISHERS, REMEMBERED, Sequence, Sequences, Source


def packet(number: int | None, *, time: float | None = None, kind: str = "log", script: str = "tune.py") -> Packet:
    moment = 1000.0 + (number or 0) if time is None else time
    return Packet(id="s2", script=script, host="srv", type=kind, payload={}, time=moment, seq_no=number)


def counted(*packets: Packet) -> Sequence:
    sequence = Sequence()
    for item in packets:
        sequence.count(item)
    return sequence


def test_messages_in_order_are_only_received() -> None:
    sequence = counted(*(packet(number) for number in range(100)))

    assert (sequence.received, sequence.lost, sequence.duplicates, sequence.reordered) == (100, 0, 0, 0)
    assert sequence.restarted == 0
    assert sequence.last_seq_no == 99


def test_a_number_that_is_skipped_is_lost() -> None:
    assert counted(packet(0), packet(5), packet(6)).lost == 4


def test_what_was_sent_before_we_listened_is_not_lost() -> None:
    assert counted(packet(500), packet(501)).lost == 0


def test_a_number_that_comes_late_was_not_lost_but_reordered() -> None:
    sequence = counted(packet(0), packet(2), packet(3), packet(1))

    assert (sequence.lost, sequence.reordered, sequence.duplicates) == (0, 1, 0)


def test_a_message_that_comes_twice_is_a_duplicate() -> None:
    sequence = counted(packet(0), packet(1), packet(1), packet(2), packet(0))

    assert (sequence.duplicates, sequence.lost, sequence.restarted) == (2, 0, 0)


def test_a_publisher_that_begins_again_is_neither_lost_nor_doubled() -> None:
    again = [packet(number, time=5000.0 + number, kind="start" if not number else "log") for number in range(3)]
    sequence = counted(*(packet(number) for number in range(10)), *again)

    assert (sequence.restarted, sequence.lost, sequence.duplicates) == (1, 0, 0)


def test_a_publisher_that_begins_again_with_its_start_lost_is_known_by_the_newer_time() -> None:
    sequence = counted(packet(0), packet(1), packet(2), packet(1, time=9000.0), packet(2, time=9001.0))

    assert (sequence.restarted, sequence.lost, sequence.duplicates) == (1, 1, 0)


def test_a_publisher_whose_clock_was_set_back_is_known_by_its_start() -> None:
    sequence = counted(packet(0, kind="start"), packet(1), packet(0, time=10.0, kind="start"), packet(1, time=11.0))

    assert (sequence.restarted, sequence.lost) == (1, 0)


def test_messages_without_a_number_are_only_counted() -> None:
    sequence = counted(packet(None), packet(3), packet(None), packet(4))

    assert (sequence.received, sequence.unnumbered, sequence.lost) == (4, 2, 0)


def test_a_gap_of_any_size_costs_no_memory() -> None:
    sequence = counted(packet(0), packet(2**62, time=2000.0))

    assert sequence.lost == 2**62 - 1
    assert len(sequence._missing) == REMEMBERED


def test_publishers_are_told_apart_and_no_more_than_so_many_are_kept() -> None:
    sequences = Sequences()
    for number in range(MOST_PUBLISHERS + 10):
        sequences.count(packet(0, script=f"script {number}"))

    assert len(sequences.shown()) == MOST_PUBLISHERS
    assert sequences.of(Source("s2", "script 0", "srv")) is None
    assert sequences.shown()[0]["script"] == f"script {MOST_PUBLISHERS + 9}"


@given(st.integers(0, 2**32), st.integers(1, 300))
def test_losses_doubles_and_shuffles_always_add_up(seed: int, count: int) -> None:
    draw = random.Random(seed)
    kept = [number for number in range(count) if number == 0 or draw.random() > 0.2]
    sent = [number for number in kept for _ in range(1 + (draw.random() < 0.2))]
    tail = sent[1:]
    for index in range(len(tail) - 1):
        if draw.random() < 0.2:
            tail[index], tail[index + 1] = tail[index + 1], tail[index]
    sequence = counted(packet(0), *(packet(number) for number in tail))

    assert sequence.received == len(sent)
    assert sequence.duplicates == len(sent) - len(kept)
    assert sequence.lost == max(kept) + 1 - len(kept)
    assert sequence.restarted == 0
