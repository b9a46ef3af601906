"""The work itself, filed by domain: each step does one thing and may run more than once."""
