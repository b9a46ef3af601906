"""The conditions that several rules share, under the names that people at the beamline use."""

from labwright.conditions import event_type, fact

collection_started = event_type("data_collection.start")
collection_ended = event_type("data_collection.end")

rotation = fact("data_collection_class", "rotation")
grid_scan = fact("data_collection_class", "grid")
serial = fact("data_collection_class").is_in("serial_fixed", "serial_jet")

has_data = ~fact("run_status", "failure")
"""The run may still be unknown to ISPyB at its end; only a known failure is not worth the work."""
