"""The classes of zocalo's Mimas, with the fields and values of both published lines of it.

What may be in them is checked by `validate`; how they are written as messages and commands stands in `conversions`.
All of it is offered as `zocalo.mimas.classes` too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from labwright.core.errors import NotProvidedError, UsageError

if TYPE_CHECKING:
    import gemmi


SPACE_GROUPS = 230
DIGITS = 3
LETTERS = 2
"""How long the number of a space group or an element, and an element's symbol, can be."""


class MimasError(UsageError, ValueError):
    """A Mimas object, message or command is not valid."""

    kind = "mimas"


class MimasExperimentType(Enum):
    """What kind of experiment a data collection belongs to."""

    OSC = 1
    MESH = 2
    SAD = 3
    ENERGY_SCAN = 4
    XRF_MAP = 5
    XRF_MAP_XAS = 6
    XRF_SPECTRUM = 7
    UNDEFINED = 8


class MimasDCClass(Enum):
    """What kind of data collection it is."""

    GRIDSCAN = 1
    ROTATION = 2
    SCREENING = 3
    UNDEFINED = 4
    CHARACTERIZATION = 5
    DIAMOND_ANVIL_CELL = 6
    SERIAL_FIXED = 7
    SERIAL_JET = 8


class MimasDetectorClass(Enum):
    """What kind of detector took the images."""

    PILATUS = 1
    EIGER = 2


class MimasEvent(Enum):
    """What happened to the data collection or its group."""

    START = 1
    END = 2
    START_GROUP = 3
    END_GROUP = 4


class MimasRunStatus(Enum):
    """How the data collection ended."""

    SUCCESS = 1
    FAILURE = 2
    UNKNOWN = 3


@dataclass(frozen=True)
class MimasISPyBUnitCell:
    """A unit cell: lengths in Angstrom, angles in degrees."""

    a: float
    b: float
    c: float
    alpha: float
    beta: float
    gamma: float

    @property
    def string(self) -> str:
        """The six numbers with commas between them."""
        return f"{self.a},{self.b},{self.c},{self.alpha},{self.beta},{self.gamma}"


@dataclass(frozen=True)
class MimasISPyBSpaceGroup:
    """A space group by any of its names."""

    symbol: str

    @property
    def string(self) -> str:
        """The short Hermann-Mauguin symbol without blanks: "P 41 21 2" is P41212, "P21" is P1211."""
        return space_group(self.symbol).hm.replace(" ", "")


@dataclass(frozen=True)
class MimasISPyBAnomalousScatterer:
    """An element by symbol or number."""

    symbol: str

    @property
    def string(self) -> str:
        """The symbol of the element."""
        return element(self.symbol).name


@dataclass(frozen=True)
class MimasISPyBSweep:
    """The images `start` to `end` of a data collection."""

    dcid: int
    start: int
    end: int


@dataclass(frozen=True)
class MimasScenario:
    """All that a Mimas task sees of a data collection."""

    dcid: int
    experimenttype: MimasExperimentType
    event: MimasEvent
    beamline: str
    runstatus: MimasRunStatus
    dcclass: MimasDCClass | None = None
    spacegroup: MimasISPyBSpaceGroup | None = None
    unitcell: MimasISPyBUnitCell | None = None
    getsweepslistfromsamedcg: Sequence[MimasISPyBSweep] = ()
    preferred_processing: str | None = None
    detectorclass: MimasDetectorClass | None = None
    proposalcode: str | None = None
    visit: str | None = None
    anomalous_scatterer: MimasISPyBAnomalousScatterer | None = None
    cloudbursting: Sequence[Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class MimasISPyBParameter:
    """A parameter of a processing job."""

    key: str
    value: str


@dataclass(frozen=True)
class MimasISPyBTriggerVariable:
    """A parameter that goes into the recipe when a processing job is started."""

    key: str
    value: str


@dataclass(frozen=True)
class MimasISPyBJobInvocation:
    """Ask for a processing job in ISPyB, and for its start if `autostart`."""

    dcid: int
    autostart: bool
    recipe: str
    source: str
    comment: str = ""
    displayname: str = ""
    parameters: Sequence[MimasISPyBParameter] = ()
    sweeps: Sequence[MimasISPyBSweep] = ()
    triggervariables: Sequence[MimasISPyBTriggerVariable] = ()


@dataclass(frozen=True)
class MimasRecipeInvocation:
    """Ask for a recipe to be run on a data collection."""

    dcid: int
    recipe: str


def space_group(symbol: object) -> gemmi.SpaceGroup:
    """Find a space group by name, or by number in digits.

    Raises:
        MimasError: there is none.
        NotProvidedError: the package gemmi is not installed.
    """
    if isinstance(symbol, str) and symbol.strip():
        crystallography = _gemmi("space groups")
        text = symbol.strip()
        found = None
        if not text.isdigit():
            found = crystallography.find_spacegroup_by_name(text)
        elif text.isascii() and 0 < int(text[: DIGITS + 1]) <= SPACE_GROUPS:
            found = crystallography.find_spacegroup_by_number(int(text))
        if found is not None:
            return found
    raise MimasError(
        f"{symbol!r} is no space group", because="gemmi does not know it", cure="for example P212121, P 41 21 2 or 19"
    )


def element(symbol: object) -> gemmi.Element:
    """Find an element by symbol, or by number.

    Raises:
        MimasError: there is none.
        NotProvidedError: the package gemmi is not installed.
    """
    text = str(symbol) if isinstance(symbol, str | int) and not isinstance(symbol, bool) else ""
    is_number = text.isascii() and text.isdigit() and len(text) <= DIGITS
    if is_number or (text.isascii() and text.isalpha() and len(text) <= LETTERS):
        crystallography = _gemmi("elements")
        found = crystallography.Element(int(text)) if is_number else crystallography.Element(text)
        if found.atomic_number != 0:
            return found
    raise MimasError(f"{symbol!r} is no element", because="gemmi does not know it", cure="for example Se or 34")


def _gemmi(what: str) -> Any:
    try:
        import gemmi
    except ImportError as error:
        raise NotProvidedError(
            f"{what} need the package gemmi, which is not installed",
            because=str(error),
            cure='pip install "labwright[mimas]"',
        ) from error
    return gemmi
