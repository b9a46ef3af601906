"""Configuration in sodetlib's way: `DetConfig` finds the slot's files, makes the control object, keeps what is tuned.

A slot needs no system file (`$OCS_CONFIG_DIR/sys_config.yml`): without one its stream is `crate1slot<N>`, and its
device file stands in the data folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from labwright.instruments.pysmurf.simulated import DEFAULT_SLOT, usual_stream_id
from labwright.instruments.pysmurf.simulated.control import SmurfControl
from labwright.instruments.pysmurf.simulated.settings import BANDS, BIAS_GROUPS, Settings


def _experiment() -> dict[str, Any]:
    return {
        "downsample_factor": 20,
        "downsample_mode": "internal",
        "downsample_filter": {"order": 4, "cutoff_freq": 63},
        "coupling_mode": "dc",
        "synthesis_scale": 1,
        "active_bands": list(range(BANDS)),
        "active_bgs": list(range(BIAS_GROUPS)),
        "enable_compression": True,
        "amps_to_bias": ["hemt", "50k"],
        "amp_enable_wait_time": 10.0,
        "amp_step_wait_time": 0.2,
        "amp_hemt_drain_current": 8.0,
        "amp_hemt_drain_current_tolerance": 0.2,
        "amp_hemt_init_gate_volt": -1.0,
        "amp_hemt_gate_volt": None,
        "amp_50k_drain_current": 15.0,
        "amp_50k_drain_current_tolerance": 0.2,
        "amp_50k_init_gate_volt": -0.5,
        "amp_50k_gate_volt": None,
        "res_amp_cut": 0.01,
        "res_grad_cut": 0.01,
        "flux_ramp_rate_khz": 4,
        "init_frac_pp": 0.4,
        "nphi0": 5,
        "f_ptp_range": [10, 200],
        "df_ptp_range": [0, 100],
        "r2_min": 0.9,
        "min_good_tracking_frac": 0.8,
        "rfrac": 0.5,
        "overbias_wait": 2.0,
        "cool_wait": 30.0,
        "tunefile": None,
        "bgmap_file": None,
        "iv_file": None,
    }


def _band() -> dict[str, Any]:
    return {
        "band_delay_us": None,
        "uc_att": None,
        "dc_att": None,
        "attens_optimized": False,
        "tone_power": 12,
        "lms_gain": 0,
        "feedback_gain": 2048,
        "frac_pp": None,
        "lms_freq_hz": None,
    }


def _bias_group() -> dict[str, Any]:
    return {"overbias_voltage": 19.9, "cool_voltage": 10.0}


class DeviceConfig:
    """What is known of the device on one slot: the experiment as a whole, its bands, its bias groups."""

    def __init__(self) -> None:
        self.exp = _experiment()
        self.bands = [_band() for _ in range(BANDS)]
        self.bias_groups = [_bias_group() for _ in range(BIAS_GROUPS)]
        self.source_file: str | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DeviceConfig:
        """Read what a device file holds: `experiment`, `bands` (by `AMC[i]` or `Band[i]`), `bias_groups`."""
        device = cls()
        device.exp.update(data.get("experiment") or {})
        bands: Mapping[str, Mapping[str, Any]] = data.get("bands") or {}
        groups: Mapping[str, Sequence[Any]] = data.get("bias_groups") or {}
        for key, values in bands.items():
            device._read_bands(str(key).lower(), values)
        for key, values in groups.items():
            for group, value in zip(device.bias_groups, values, strict=False):
                group[key] = value
        return device

    @classmethod
    def from_yaml(cls, filename: str) -> DeviceConfig:
        """Read a device file; one that is absent is written with what is usual."""
        path = Path(os.path.expandvars(filename)).absolute()
        if path.exists():
            device = cls.from_dict(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
            device.source_file = str(path)
        else:
            device = cls()
            device.source_file = str(path)
            device.update_file()
        return device

    def dump(self, path: str, clobber: bool = False) -> None:
        """Write the device file.

        Raises:
            FileExistsError: it is there already, and may not be overwritten.
        """
        target = Path(path)
        if target.exists() and not clobber:
            message = f"{path} is there already"
            raise FileExistsError(message)
        target.parent.mkdir(parents=True, exist_ok=True)
        data = {
            "experiment": self.exp,
            "bias_groups": {key: [group.get(key) for group in self.bias_groups] for key in self.bias_groups[0]},
            "bands": {
                f"AMC[{half}]": {key: [band.get(key) for band in self.bands[4 * half :][:4]] for key in self.bands[0]}
                for half in (0, 1)
            },
        }
        new = target.with_name(f"{target.name}.{os.getpid()}")
        new.write_text(yaml.safe_dump(_plain(data), sort_keys=False), encoding="utf-8")
        new.replace(target)

    def update_experiment(self, data: Mapping[str, Any], update_file: bool = False) -> None:
        """Change values of the experiment."""
        self.exp.update(data)
        self._update(update_file=update_file)

    def update_band(self, band_index: int, data: Mapping[str, Any], update_file: bool = False) -> None:
        """Change values of a band."""
        self.bands[band_index].update(data)
        self._update(update_file=update_file)

    def update_bias_group(self, bg_index: int, data: Mapping[str, Any], update_file: bool = False) -> None:
        """Change values of a bias group."""
        self.bias_groups[bg_index].update(data)
        self._update(update_file=update_file)

    def update_file(self) -> None:
        """Write the file that it came from."""
        if self.source_file is not None:
            self.dump(self.source_file, clobber=True)

    def _update(self, *, update_file: bool) -> None:
        if update_file:
            self.update_file()

    def _read_bands(self, key: str, values: Mapping[str, Any]) -> None:
        number = int("".join(filter(str.isdigit, key)))
        if key.startswith("band"):
            self.bands[number].update(values)
            return
        for name, of_bands in values.items():
            for band, value in zip(self.bands[4 * number :], of_bands, strict=False):
                band[name] = value


class DetConfig:
    """Finds the configuration of a slot, and makes its control object."""

    def __init__(
        self,
        slot: int | None = None,
        sys_file: str | None = None,
        dev_file: str | None = None,
        pysmurf_file: str | None = None,
        uxm_file: str | None = None,
    ) -> None:
        self.slot = slot
        self.sys_file, self.dev_file = sys_file, dev_file
        self.pysmurf_file, self.uxm_file = pysmurf_file, uxm_file
        self.sys: dict[str, Any] = {}
        self.dev = DeviceConfig()
        self.uxm: dict[str, Any] | None = None
        self.stream_id = ""
        self.dump = False
        self.S: SmurfControl | None = None  # pyright: ignore[reportConstantRedefinition] - sodetlib's name

    def parse_args(
        self, parser: argparse.ArgumentParser | None = None, args: Sequence[str] | None = None
    ) -> argparse.Namespace:
        """Parse a script's arguments and the usual ones beside them, and load the configuration that they name."""
        parsed = make_parser(parser).parse_args(args)
        self.dump = bool(parsed.dump_configs)
        self.load_config_files(
            slot=parsed.slot,
            sys_file=parsed.sys_file,
            dev_file=parsed.dev_file,
            pysmurf_file=parsed.pysmurf_file,
            uxm_file=parsed.uxm_file,
        )
        return parsed

    def load_config_files(
        self,
        slot: int | None = None,
        sys_file: str | None = None,
        dev_file: str | None = None,
        pysmurf_file: str | None = None,
        uxm_file: str | None = None,
    ) -> None:
        """Load the configuration of a slot: the one given, else SLOT of the environment, else the only one there is.

        Raises:
            ValueError: there are several slots and none was named, or it is none of them.
        """
        self.sys_file = sys_file or self.sys_file or os.path.expandvars("$OCS_CONFIG_DIR/sys_config.yml")
        self.sys = _read_yaml(self.sys_file) or self._usual_system(slot)
        self.slot = int(slot or self.slot or os.environ.get("SLOT") or self._only_slot())
        of_slot: dict[str, Any] | None = self.sys["slots"].get(f"SLOT[{self.slot}]")
        if of_slot is None:
            message = f"{self.sys_file} has no SLOT[{self.slot}]; it has {', '.join(self.sys['slots'])}"
            raise ValueError(message)
        self.stream_id = of_slot["stream_id"]
        self.dev_file = os.path.expandvars(dev_file or self.dev_file or of_slot["device_config"])
        self.pysmurf_file = pysmurf_file or self.pysmurf_file or of_slot.get("pysmurf_config")
        self.uxm_file = uxm_file or self.uxm_file or of_slot.get("uxm_file")
        self.uxm = _read_yaml(self.uxm_file) if self.uxm_file else None
        self.dev = DeviceConfig.from_yaml(self.dev_file)

    def get_smurf_control(
        self,
        offline: bool = False,
        epics_root: str | None = None,
        smurfpub_id: str | None = None,
        *,
        make_logfile: bool = False,
        setup: bool = False,
        dump_configs: bool | None = None,
        config_dir: str | None = None,
        apply_dev_configs: bool = False,
        load_device_tune: bool = True,
        **pysmurf_kwargs: Any,
    ) -> SmurfControl:
        """Make the control object of the slot; it publishes under SMURFPUB_ID, where that is not set the stream id."""
        if smurfpub_id is not None:
            os.environ["SMURFPUB_ID"] = smurfpub_id
        os.environ.setdefault("SMURFPUB_ID", self.stream_id)
        control = SmurfControl(
            epics_root=epics_root or f"smurf_server_s{self.slot}",
            cfg_file=self.pysmurf_file,
            data_path_id=self.stream_id,
            offline=offline,
            **pysmurf_kwargs,
        )
        control._sodetlib_cfg = self  # pyright: ignore[reportPrivateUsage] - where sodetlib keeps it
        self.S = control  # pyright: ignore[reportConstantRedefinition] - as above
        if self.dump if dump_configs is None else dump_configs:
            self.dump_configs(config_dir)
        if apply_dev_configs and load_device_tune and self.dev.exp["tunefile"]:
            control.load_tune(self.dev.exp["tunefile"])
        return control

    def dump_configs(self, output_dir: str | None = None, **_options: Any) -> dict[str, str]:
        """Write all configuration beside the outputs, and announce it; gives the paths."""
        if self.S is None:
            message = "there is no control object yet: call get_smurf_control first"
            raise ValueError(message)
        control = self.S
        folder = Path(output_dir or Path(control.output_dir).parent / "config" / control.get_timestamp())
        folder.mkdir(parents=True, exist_ok=True)
        about = {"slot": self.slot, "argv": " ".join(sys.argv), "cwd": str(Path.cwd()), "time": int(time.time())}
        files = {"run": "run_info.yml", "sys": "sys_config.yml", "dev": "dev_cfg.yml"}
        paths = {kind: str(folder / name) for kind, name in files.items()}
        Path(paths["run"]).write_text(yaml.safe_dump(about), encoding="utf-8")
        Path(paths["sys"]).write_text(yaml.safe_dump(_plain(self.sys)), encoding="utf-8")
        self.dev.dump(paths["dev"], clobber=True)
        for path in paths.values():
            control.pub.register_file(path, "config", format="yaml")
        return paths

    def _usual_system(self, slot: int | None) -> dict[str, Any]:
        number = int(slot or self.slot or os.environ.get("SLOT") or DEFAULT_SLOT)
        is_ours = not (slot or self.slot) or str(number) == os.environ.get("SLOT")
        named = os.environ.get("LABWRIGHT_SMURF_STREAM_ID") if is_ours else None
        stream_id = named or usual_stream_id(slot=number)
        device = Settings.of().data / "config" / stream_id / "dev_cfg.yaml"
        return {
            "slot_order": [number],
            "crate_id": 1,
            "g3_dir": str(Settings.of().data / "so" / "timestreams"),
            "slots": {f"SLOT[{number}]": {"stream_id": stream_id, "device_config": str(device)}},
        }

    def _only_slot(self) -> int:
        slots: list[int] = self.sys.get("slot_order") or []
        if len(slots) != 1:
            message = f"which slot? {self.sys_file} has {slots}; name one with --slot"
            raise ValueError(message)
        return slots[0]


def make_parser(parser: argparse.ArgumentParser | None = None) -> argparse.ArgumentParser:
    """Add the usual arguments to a script's parser."""
    parser = parser or argparse.ArgumentParser()
    parser.add_argument("--sys-file", help="the system's configuration")
    parser.add_argument("--dev-file", help="the device's configuration")
    parser.add_argument("--pysmurf-file", help="pysmurf's configuration")
    parser.add_argument("--uxm-file", help="the module's configuration")
    parser.add_argument("--slot", "-N", type=int, help="the slot of the card")
    parser.add_argument("--dump-configs", "-D", action="store_true", help="write all configuration beside the outputs")
    return parser


def _read_yaml(path: str) -> dict[str, Any] | None:
    try:
        return cast("dict[str, Any]", yaml.safe_load(Path(os.path.expandvars(path)).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def _plain(value: Any) -> Any:
    """Give a value as YAML has it: numpy's numbers and arrays as numbers and lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("Sequence[Any]", value)]
    return value.tolist() if hasattr(value, "tolist") else value
