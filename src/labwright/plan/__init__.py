"""How and when something is done: tasks, steps, retries, the policy of dispatch. Pure; no I/O."""
