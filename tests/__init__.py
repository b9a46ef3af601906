"""The tests of Labwright: they mirror `src/labwright`, and `support` holds what they share."""
