"""The schedule that runs anywhere: in a script, in a notebook, without a server. The standard library alone."""
