"""Identities: new ones that sort by time, and hashed ones that the same cause always yields again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time

from labwright.core.errors import UsageError

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
NAME_PATTERN = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
AN = re.compile("[aeio]|u(?!se|ni)")
"""What words begin with before which one says "an"."""
LENGTH = 26
PAIRS = [first + second for first in ALPHABET for second in ALPHABET]
SHIFTS = range(5 * (LENGTH - 2), -1, -10)
ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def new_id(prefix: str) -> str:
    """Make a fresh id such as `run_01JC...`: 48 bits of milliseconds and 80 random bits, in Crockford's base 32."""
    moment = time.time_ns() // 1_000_000
    return f"{prefix}_{_encode((moment << 80) | int.from_bytes(os.urandom(10)))}"


def hashed_id(prefix: str, *parts: object) -> str:
    """Make the id that belongs to these parts: equal parts, equal id."""
    digest = hashlib.sha256(canonical(parts).encode()).digest()
    return f"{prefix}_{_encode(int.from_bytes(digest[:16]) >> 2)}"


def canonical(value: object) -> str:
    """Write a JSON-like value so that equal values give equal text.

    Raises:
        TypeError: the value holds something that JSON cannot say.
    """
    return ENCODER.encode(value)


def content_hash(value: object) -> str:
    """Hash a JSON-like value; equal values hash alike, whatever the order of their keys."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:32]


def checked_name(name: str, kind: str) -> str:
    """Return the name if it may name a thing of that kind.

    Raises:
        UsageError: it holds other characters than letters, digits and `_ . : -`, or is empty or over 128 long.
    """
    if not NAME_PATTERN.fullmatch(name):
        message = f"{name!r} cannot name {'an' if AN.match(kind) else 'a'} {kind}"
        raise UsageError(
            message,
            because="a name has 1 to 128 letters, digits or _ . : - and nothing else",
            cure="choose another name",
        )
    return name


def _encode(number: int) -> str:
    return "".join([PAIRS[number >> shift & 1023] for shift in SHIFTS])
