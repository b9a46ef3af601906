"""YAML and JSON files as people write them: read strictly, with the line in every complaint."""

from __future__ import annotations

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from labwright.core.errors import NotFoundError, SiteError


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, where YAML's own reader takes the last in silence."""


def _strict_mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    loader.flatten_mapping(node)
    seen: set[Hashable] = set()
    for key_node, _ in node.value:
        key: Hashable = loader.construct_object(key_node, deep=True)  # pyright: ignore[reportUnknownMemberType]
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _strict_mapping)


def read_document(path: Path, *, is_required: bool) -> Any:
    """Read a YAML or JSON file; an absent one that is not required is None, like an empty one.

    Raises:
        NotFoundError: it is required and absent.
        SiteError: it cannot be read, or is not YAML; the message names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if not is_required:
            return None
        raise NotFoundError(
            f"there is no file {path}", because="the settings name it", cure="make it, or mend labwright.toml"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SiteError(f"{path} cannot be read", because=str(error), cure="mend the file or its rights") from error
    if path.suffix == ".json":
        return _read_json(path, text)
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader with one more check
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise SiteError(
            f"{path}{where}: {error.problem or 'not YAML'}", because="the file is not valid YAML", cure="mend that line"
        ) from error
    except (yaml.YAMLError, RecursionError, TypeError, ValueError) as error:
        raise SiteError(f"{path}: {error}", because="the file is not valid YAML", cure="mend the file") from error


def _read_json(path: Path, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_strict_object) if text.strip() else None
    except json.JSONDecodeError as error:
        raise SiteError(
            f"{path}, line {error.lineno}, column {error.colno}: {error.msg}",
            because="the file is not valid JSON",
            cure="mend that line",
        ) from error
    except (RecursionError, ValueError) as error:
        raise SiteError(f"{path}: {error}", because="the file is not valid JSON", cure="mend the file") from error


def _strict_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return record
