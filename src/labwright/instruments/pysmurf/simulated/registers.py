"""Registers of the streamer that sodetlib sets and reads by name, in pysmurf's way: `Registers(S).stream_tag.get()`."""

from __future__ import annotations

from typing import Any

from labwright.instruments.pysmurf.simulated.hardware import Hardware

STREAM = "AMCc:SmurfProcessor:SOStream:"
ADDRESSES = {
    "pysmurf_action": STREAM + "pysmurf_action",
    "pysmurf_action_timestamp": STREAM + "pysmurf_action_timestamp",
    "stream_tag": STREAM + "stream_tag",
    "open_g3stream": STREAM + "open_g3stream",
    "g3_session_id": STREAM + "SOFileWriter:session_id",
    "g3_filepath": STREAM + "SOFileWriter:filepath",
    "debug_data": STREAM + "DebugData",
    "debug_meta": STREAM + "DebugMeta",
    "debug_builder": STREAM + "DebugBuilder",
    "flac_level": STREAM + "FlacLevel",
    "source_enable": "AMCc:StreamDataSource:SourceEnable",
    "enable_compression": STREAM + "EnableCompression",
    "agg_time": STREAM + "SOFileWriter:agg_time",
}
AT_BOOT: dict[str, Any] = {
    ADDRESSES["pysmurf_action"]: "",
    ADDRESSES["stream_tag"]: "",
    ADDRESSES["g3_filepath"]: "",
    ADDRESSES["agg_time"]: 1.0,
    ADDRESSES["enable_compression"]: 1,
}


def read_register(hardware: Hardware, address: str) -> Any:
    """Read a register by its address; one that was never set has its value of boot, or zero."""
    return hardware.get("registers").get(address, AT_BOOT.get(address, 0))


def write_register(hardware: Hardware, address: str, value: Any) -> None:
    """Set a register by its address."""
    hardware.change(lambda state: state["registers"].update({address: value}))


class Register:
    """One register."""

    def __init__(self, S: Any, address: str) -> None:
        self.S = S
        self.addr = f"{S.epics_root}:{address}"

    def get(self, **options: Any) -> Any:
        """Read it."""
        return self.S._caget(self.addr, **options)

    def set(self, value: Any, **options: Any) -> None:
        """Set it."""
        self.S._caput(self.addr, value, **options)


class Registers:
    """The registers by name."""

    def __init__(self, S: Any) -> None:
        self._registers = {name: Register(S, address) for name, address in ADDRESSES.items()}

    def __getattr__(self, name: str) -> Register:
        """Give the register of that name."""
        registers: dict[str, Register] = self.__dict__.get("_registers", {})
        if name not in registers:
            message = f"no register {name!r}"
            raise AttributeError(message)
        return registers[name]
