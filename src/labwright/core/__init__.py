"""Words that every part shares: errors, models, identities, time. No I/O."""
