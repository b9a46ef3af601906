"""The memory: the ordered record of everything that happened, the server that keeps it, and the view folded from it."""
