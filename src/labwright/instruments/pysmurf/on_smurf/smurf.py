"""The way to one SMuRF: its control object as sodetlib's idiom makes it, tied to the session that it serves."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping
from typing import Any, Protocol

from labwright.core.plain import to_plain


class Teller(Protocol):
    """What an operation says to its session from a child process."""

    def log(self, text: str, level: str = "info") -> None:
        """Say a line."""
        ...

    def update(self, mapping: Mapping[str, Any] | None = None, /, **values: Any) -> None:
        """Merge values deeply into what the session shows."""
        ...

    def progress(self, done: float, total: float | None = None, text: str = "") -> None:
        """Say how far it is."""
        ...


class Told:
    """What the child has been told from outside: whether it is to end."""

    def __init__(self) -> None:
        self._stopping = threading.Event()

    @property
    def is_stopping(self) -> bool:
        """Whether the operation is to end."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Tell that it is to end; whoever waits wakes up."""
        self._stopping.set()

    def wait(self, seconds: float) -> None:
        """Wait so long, or until the operation is to end."""
        self._stopping.wait(seconds)


class SessionMirror:
    """An OCS session as sodetlib's functions know it: what they put into `data` is shown at once.

    They look at `status` wherever they may stop (`stop_point`), and call `add_message`.
    """

    def __init__(self, teller: Teller, told: Told) -> None:
        self.data = MirroredData(teller)
        self._teller = teller
        self._told = told

    @property
    def status(self) -> str:
        """Tell `stopping` once the operation is to end."""
        return "stopping" if self._told.is_stopping else "running"

    def add_message(self, text: str) -> None:
        """Say a line."""
        self._teller.log(text)


class MirroredData(dict[str, Any]):
    """A dictionary whose every change at the top goes to the session."""

    def __init__(self, teller: Teller) -> None:
        super().__init__()
        self._teller = teller

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        self._teller.update({name: to_plain(value)})
        if name == "timestamps" and value:  # sodetlib's (name of the step, time) of all that has begun
            self._teller.progress(len(value), text=str(value[-1][0]))

    def update(self, *others: Any, **values: Any) -> None:
        """Change several at once."""
        for name, value in dict(*others, **values).items():
            self[name] = value


class Smurf:
    """One SMuRF for one operation: `control` connects, everything else is said to the session."""

    def __init__(self, teller: Teller, slot: int | None) -> None:
        self.teller = teller
        self.told = Told()
        self.slot = slot

    @staticmethod
    def library(name: str) -> Any:
        """Give a module of sodetlib, as it is installed here or simulated.

        Raises:
            ImportError: it is not there.
        """
        return importlib.import_module(name)

    def control(self, *, load_tune: bool = True, **options: Any) -> tuple[Any, Any]:
        """Give pysmurf's control object and sodetlib's configuration for the slot, with the tune of before.

        Raises:
            ImportError: pysmurf or sodetlib is not installed here.
        """
        configuration = self.library("sodetlib.det_config").DetConfig()
        configuration.load_config_files(slot=self.slot)
        control = configuration.get_smurf_control(**options)
        tune = configuration.dev.exp.get("tunefile")
        if load_tune and tune:
            control.load_tune(tune)
        elif load_tune:
            self.teller.log("there is no tune yet; the operation begins without one")
        control._ocs_session = SessionMirror(self.teller, self.told)  # noqa: SLF001 - where sodetlib looks for it
        return control, configuration
