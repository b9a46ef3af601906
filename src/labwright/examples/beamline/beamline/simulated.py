"""What stands in for the hardware: a detector, a host's scratch folder and a tape library, made of files.

Each takes its time like the real one, and each of its commands may safely be given twice.
"""

import json
import random
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PIXELS = 256
WRITING_S = 0.3
MOUNTING_S = 0.3


@dataclass(frozen=True)
class Detector:
    """The detector's file writer: its images appear some time after it was told to write them."""

    folder: Path

    def arm(self, dcid: int, images: int) -> None:
        """Make ready for a data collection."""
        _write(self.folder / f"{dcid}.armed", {"images": images})

    def flush(self, dcid: int, images: int) -> None:
        """Begin to write the images of a data collection; one that was told to before goes on."""
        folder = self.folder / str(dcid)
        if not (folder / "begun").exists():
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(1, images + 1):
                (folder / f"{number:05}.img").write_bytes(_image(dcid, number))
            (folder / "begun").touch()

    def is_written(self, dcid: int) -> bool:
        """Tell whether all images have reached the disk."""
        begun = self.folder / str(dcid) / "begun"
        return begun.exists() and time.time() - begun.stat().st_mtime >= WRITING_S

    def image(self, dcid: int, number: int) -> bytes:
        """Give the pixels of one image, a byte each; numbers count from 1."""
        return (self.folder / str(dcid) / f"{number:05}.img").read_bytes()


@dataclass(frozen=True)
class Storage:
    """The scratch folder of one host: a folder of results for each data collection."""

    folder: Path

    def write(self, dcid: int, name: str, content: Mapping[str, Any]) -> Path:
        """Write a result; the same name again replaces it, whole or not at all."""
        return _write(self.folder / str(dcid) / f"{name}.json", content)

    def collections(self) -> list[int]:
        """List the data collections that have results here, the oldest first."""
        return sorted(int(path.name) for path in self.folder.glob("[0-9]*"))

    def remove(self, dcid: int) -> None:
        """Remove the results of a data collection, if they are there."""
        shutil.rmtree(self.folder / str(dcid), ignore_errors=True)


@dataclass(frozen=True)
class TapeLibrary:
    """The archive: a tape must be mounted before it can be written, and a robot takes its time to do so."""

    folder: Path

    def mount(self, visit: str) -> None:
        """Ask for the tape of a visit; who has asked already changes nothing."""
        if not self._request(visit).exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._request(visit).touch()

    def is_mounted(self, visit: str) -> bool:
        """Tell whether the robot has brought the tape."""
        asked = self._request(visit)
        return asked.exists() and time.time() - asked.stat().st_mtime >= MOUNTING_S

    def write(self, visit: str, dcid: int, results: Path) -> Path:
        """Copy a file of results to the tape."""
        copy = self.folder / visit / f"{dcid}-{results.name}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(results, copy))

    def unmount(self, visit: str) -> None:
        """Give the tape back; one that is not mounted stays where it is."""
        self._request(visit).unlink(missing_ok=True)

    def _request(self, visit: str) -> Path:
        return self.folder / f"{visit}.mount"


def _image(dcid: int, number: int) -> bytes:
    """Make the pixels of an image: noise with a few spots, always the same for the same number."""
    source = random.Random(f"{dcid}/{number}")  # noqa: S311 - pixels are no secret
    pixels = bytearray(source.randrange(40) for _ in range(PIXELS))
    for _ in range(source.randrange(4, 12)):
        pixels[source.randrange(PIXELS)] = source.randrange(120, 256)
    return bytes(pixels)


def _write(path: Path, content: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".part")
    whole.write_text(json.dumps(content, indent=2), encoding="utf-8")
    return whole.replace(path)
