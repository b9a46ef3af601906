"""The loops that do the work: context, execution, worker, dispatcher, site, engine."""
