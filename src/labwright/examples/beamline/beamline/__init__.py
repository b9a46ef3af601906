"""A beamline for macromolecular crystallography: what it does with each data collection, by itself.

Read in this order: `conditions` and `rules` (what should happen), `tasks` (how), `steps` (the work itself), `facts` and
`providers` (what rules and steps are given), `simulated` (what stands in for the hardware, so that all of it runs
anywhere).
"""
