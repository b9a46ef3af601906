"""What is known about the subjects of events and about targets: the sources of facts."""
