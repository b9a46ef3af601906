"""What should happen, and when: one module for each part of the beamline."""
