"""The dialects of other systems: their names, spoken thinly on top of ours."""
