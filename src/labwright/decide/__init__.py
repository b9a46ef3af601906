"""What should happen: scenarios, conditions, rules and decisions. Pure; no I/O."""
