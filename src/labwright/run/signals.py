"""Plain messages that hurry what the journal says anyway: nobody depends on their arrival."""

ABORTING = "signal.aborting"
"""A run is to end early: `{"run", "reason"}`."""

RELOAD = "signal.reload"
"""The site was loaded again, so workers are to be replaced."""
