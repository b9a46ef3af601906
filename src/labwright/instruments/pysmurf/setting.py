"""The setting in which a controller's processes run: slot, publisher, folders; read once from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from labwright.core.errors import UsageError
from labwright.instruments.pysmurf.packets import DEFAULT_PORT

CONFIG_DIR = "/config"
TUNING_SCRIPT = "scripts/pysmurf/tune_squids.py"


def _nothing() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a script or operation finds around it.

    `onward` is where what it publishes goes on to, None with the backend `null`; `variables` are added to its
    environment.
    """

    slot: int | None = None
    config_dir: Path | None = None
    site: Path | None = None
    onward: tuple[str, int] | None = None
    variables: Mapping[str, str] = field(default_factory=_nothing)

    @classmethod
    def of_environment(
        cls,
        *,
        slot: int | None = None,
        site: Path | None = None,
        simulated_data: Path | None = None,
        stream_id: str = "",
        environ: Mapping[str, str] | None = None,
    ) -> Setting:
        """Read the environment; with a folder for simulated data, everything runs on a simulated SMuRF.

        `stream_id` names its card where no configuration does.

        Raises:
            UsageError: SLOT or SMURFPUB_UDP_PORT is no number.
        """
        environ = os.environ if environ is None else environ
        slot = _number(environ, "SLOT") if slot is None else slot
        port = _number(environ, "SMURFPUB_UDP_PORT") or DEFAULT_PORT
        onward = (environ.get("SMURFPUB_UDP_HOST") or "localhost", port)
        return cls(
            slot=slot,
            config_dir=Path(environ["OCS_CONFIG_DIR"]) if environ.get("OCS_CONFIG_DIR") else None,
            site=site,
            onward=onward if environ.get("SMURFPUB_BACKEND") == "udp" else None,
            variables=_variables(slot, simulated_data, stream_id, environ),
        )

    @property
    def tuning_script(self) -> str:
        """The script of `tune_squids`."""
        return str((self.config_dir or Path(CONFIG_DIR)) / TUNING_SCRIPT)

    def script_path(self, script: str) -> Path:
        """Find a script: a relative path is looked up under OCS_CONFIG_DIR, or without that in the site's folder.

        Raises:
            UsageError: there is no such file.
        """
        folder = self.config_dir or self.site or Path.cwd()
        path = folder / script if script else folder
        if not path.is_file():
            raise UsageError(
                f"there is no script {script!r}",
                because=f"{path} is no file on this machine",
                cure="give its absolute path, or one relative to OCS_CONFIG_DIR",
            )
        return path


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "").strip()
    if text and not text.isdigit():
        raise UsageError(f"{name} is no number: {text!r}", because="the environment says so", cure=f"mend {name}")
    return int(text) if text else None


def _variables(
    slot: int | None, simulated_data: Path | None, stream_id: str, environ: Mapping[str, str]
) -> Mapping[str, str]:
    variables = {"SMURFPUB_BACKEND": "udp"}
    if slot is not None:
        variables["SLOT"] = str(slot)
    if simulated_data is not None:
        from labwright.instruments.pysmurf.simulated import environment

        variables |= environment(simulated_data, stream_id=stream_id, outer=environ)
    return MappingProxyType(variables)
