"""For pytest: tests of a Mimas implementors package find `zocalo.mimas` and `zocalo.trigger`."""

from labwright.compat.mimas.finder import install

install()
