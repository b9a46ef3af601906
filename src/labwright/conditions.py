"""Conditions for rules: `event_type("data_collection.end") & fact("images").at_least(100)`.

They compose with `&` (and), `|` (or) and `~` (not), and explain themselves leaf by leaf.
"""

from labwright.decide.conditions import MISSING, Condition, Reason, event_type, fact, source, subject, when

__all__ = ["MISSING", "Condition", "Reason", "event_type", "fact", "source", "subject", "when"]
