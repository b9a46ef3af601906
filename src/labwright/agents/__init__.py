"""The hands: agents that own instruments, the sessions of their operations, and the scripts that they run."""
