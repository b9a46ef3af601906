"""As in pysmurf."""
