"""Agents and operations in tests of users: with all that they are given, and without a lab."""

import gc
from pathlib import Path

import pytest

from labwright import Agent, Session, operation
from labwright.core.errors import NotProvidedError
from labwright.testing import FakeSession, LogLine, served


class Pump(Agent):
    """A pump that uses what an agent is given."""

    async def open(self) -> None:
        self.log.info("opened", folder=self.state_dir.is_dir())

    @operation
    async def dispense(self, session: Session, volume_ml: float) -> int | None:
        """Dispense by a script."""
        self.feed("volume", buffer_s=1).publish({"ml": volume_ml})
        await self.register_file("/data/a.npy", session=session.id, kind="volume")
        end = await session.script("/site/scripts/dispense.py", [volume_ml], deadline_s=60)
        self.log.warning("dispensed", code=end.exit_code)
        return end.exit_code


async def test_an_agent_has_in_a_test_all_that_it_is_given(tmp_path: Path) -> None:
    pump = Pump()
    given = served(pump, "pump-1", labels={"bench": "2"}, state_dir=tmp_path / "pump", site=tmp_path)
    session = FakeSession(scripts={"dispense.py": 3})

    await pump.open()
    result = await Pump.dispense.function(pump, session, 2.5)

    assert (pump.name, pump.labels, pump.state_dir, pump.site) == (
        "pump-1",
        {"bench": "2"},
        tmp_path / "pump",
        tmp_path,
    )
    assert given.lines == [
        LogLine("info", "opened", {"folder": True}),
        LogLine("warning", "dispensed", {"code": 3}),
    ]
    assert given.samples == {"volume": [{"ml": 2.5}]}
    assert [(file.path, file.session, file.agent) for file in given.files] == [("/data/a.npy", session.id, "pump-1")]
    assert result == 3
    (call,) = session.scripts
    assert (call.path, call.args, call.options) == ("/site/scripts/dispense.py", (2.5,), {"deadline_s": 60})


async def test_a_script_that_the_test_did_not_provide_is_named() -> None:
    session = FakeSession(scripts={"other.py": 0})

    with pytest.raises(NotProvidedError, match=r"dispense\.py") as refused:
        await session.script("dispense.py")

    assert "other.py" in str(refused.value.because)
    assert (await session.script("/anywhere/other.py")).is_success


def test_a_folder_that_the_test_did_not_name_is_removed() -> None:
    given = served(Pump())
    folder = given.state_dir
    assert folder.is_dir()

    del given
    gc.collect()

    assert not folder.exists()
