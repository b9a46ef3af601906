"""The bundled examples: folders of the package that are copied to where somebody can use and change them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

SKIPPED = ("__pycache__", ".pytest_cache", ".labwright")


def copy_example(name: str, folder: Path, *, replace: Mapping[str, str] | None = None) -> None:
    """Copy a bundled example into a folder; `replace` is applied to names and contents of files."""
    from importlib import resources

    _copy(resources.files("labwright").joinpath("examples", name), folder, replace or {})


def _copy(source: Traversable, place: Path, replace: Mapping[str, str]) -> None:
    if source.is_file():
        place.write_text(_replaced(source.read_text(encoding="utf-8"), replace), encoding="utf-8")
        return
    place.mkdir(parents=True, exist_ok=True)
    for part in source.iterdir():
        if part.name not in SKIPPED:
            _copy(part, place / _replaced(part.name, replace), replace)


def _replaced(text: str, replace: Mapping[str, str]) -> str:
    for old, new in replace.items():
        text = text.replace(old, new)
    return text
