"""Makes `zocalo.mimas.tasks`, `zocalo.mimas.classes` and `zocalo.trigger` importable where zocalo does not offer them.

The finder stands last, so an installed zocalo always comes first, module by module.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

OFFERED: dict[str, tuple[str, ...]] = {
    "zocalo": (),
    "zocalo.mimas": (),
    "zocalo.mimas.classes": (
        "labwright.compat.mimas.classes",
        "labwright.compat.mimas.validation",
        "labwright.compat.mimas.conversions",
    ),
    "zocalo.mimas.tasks": ("labwright.compat.mimas.tasks", "labwright.compat.mimas.classes"),
    "zocalo.trigger": ("labwright.compat.mimas.trigger",),
}
PACKAGES = frozenset({"zocalo", "zocalo.mimas"})
PUBLIC = ("Mimas", "Trigger", "Tasks", "validate", "zocalo_")


class ZocaloFinder(MetaPathFinder, Loader):
    """Offers our Mimas names as zocalo's modules."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Offer a module that zocalo has in its published form."""
        del path, target
        if fullname not in OFFERED:
            return None
        return ModuleSpec(fullname, self, origin="labwright.compat.mimas", is_package=fullname in PACKAGES)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Leave the making to the import system."""
        del spec

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module with our names."""
        for origin in OFFERED[module.__name__]:
            ours = vars(importlib.import_module(origin))
            vars(module).update({name: value for name, value in ours.items() if name.startswith(PUBLIC)})


def install() -> None:
    """Put the finder at the end of the import system's list, once."""
    if not any(isinstance(finder, ZocaloFinder) for finder in sys.meta_path):
        sys.meta_path.append(ZocaloFinder())
