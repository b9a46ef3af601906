"""The pysmurf controller: runs scripts for one SMuRF slot, and sodetlib's operations, each in a process of its own.

Only one thing at a time may move the hardware: all but `check_state` hold the lock `smurf`. The controller itself
imports neither pysmurf nor sodetlib, and starts without hardware.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from labwright.agents.agent import Agent
from labwright.agents.operation import operation, process
from labwright.agents.session import Session
from labwright.core.errors import NotRunningError
from labwright.instruments.pysmurf.catalogue import Catalogue
from labwright.instruments.pysmurf.controller_feeds import Feeds
from labwright.instruments.pysmurf.hardware_operation import HardwareOperation
from labwright.instruments.pysmurf.script_operation import ScriptOperation
from labwright.instruments.pysmurf.setting import Setting
from labwright.instruments.pysmurf.stream_id import configured_stream_id, simulated_stream_id
from labwright.instruments.pysmurf.voltages import LINES, biases_by_group

LOCK = "smurf"
MINUTE = 60.0
HOUR = 60 * MINUTE
STREAM_OFF_S = 15.0
"""How long a stream may take to end after it was told to."""


def _ordered(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        message = "the lower limit is above the upper one"
        raise ValueError(message)
    return limits


Band = Annotated[int, Field(ge=0, lt=8)]
Bands = Band | list[Band] | None
Group = Annotated[int, Field(ge=0, lt=LINES)]
Groups = Group | list[Group] | None
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Volts = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Shares = Annotated[tuple[Share, Share], AfterValidator(_ordered)]
Options = dict[str, Any] | None


class PysmurfController(Agent):
    """Run pysmurf scripts and sodetlib's operations on one SMuRF slot.

    `slot` is that of the SMuRF card (default: SLOT of the environment), `poll_interval` how many seconds lie between
    two readings of `check_state`, `good_threshold_relock` the share of channels of a band below which a relock is an
    alarm. With `simulate` everything runs on a simulated SMuRF, whose data go to `data_dir`. `monitor_id` is taken
    because OCS's configurations give it, and is not needed: scripts reach their session and the catalogue without a
    monitor.
    """

    def __init__(
        self,
        *,
        slot: int | None = None,
        simulate: bool = False,
        monitor_id: str = "",
        poll_interval: Seconds = 10.0,
        good_threshold_relock: Share = 0.5,
        data_dir: str = "",
    ) -> None:
        self.monitor_id = monitor_id
        self.poll_interval = poll_interval
        self._threshold = good_threshold_relock
        self._slot = slot
        self._simulate = simulate
        self._data_dir = data_dir

    def own_labels(self) -> Mapping[str, str]:
        """Give the `stream_id` of the slot, as configured, or that of the simulated card that a label places."""
        stream_id = configured_stream_id(self._slot)
        if stream_id is None and self._simulate and "slot" in self.labels:
            stream_id = simulated_stream_id(self._slot, self.labels)
        return {"stream_id": stream_id} if stream_id else {}

    async def open(self) -> None:
        """Read the environment and make the feeds; the hardware is not touched."""
        data_dir = Path(self._data_dir) if self._data_dir else self.state_dir / "smurf"
        setting = Setting.of_environment(
            slot=self._slot,
            site=self.site,
            simulated_data=data_dir.absolute() if self._simulate else None,
            stream_id=self._known_stream_id or "",
        )
        self._files = Catalogue(self.register_file, self._note_lost_file)
        self._scripts = ScriptOperation(setting, self._files)
        self._hardware = HardwareOperation(setting, self._files)
        self._feeds = Feeds(self.feed, self._threshold)
        self._setting = setting

    async def close(self) -> None:
        """Catalogue what was announced."""
        await self._files.close()

    # --- scripts -----------------------------------------------------------------------------------------------------

    @operation(timeout=24 * HOUR, lock=LOCK, adopt=True)
    async def run(
        self, session: Session, script: str, *, args: list[Any] | None = None, log: bool | str = True
    ) -> dict[str, Any]:
        """Run a pysmurf control script.

        `script` is its path; a relative one is looked up under OCS_CONFIG_DIR. `args` are its command line arguments.
        `log` is true for the session's log, the path of a file to append to, or false to keep nothing of what it
        prints. What the script publishes as `session_data` and `session_log` is the session's.
        """
        return await self._scripts.run(session, script, args or (), log)

    @operation(timeout=6 * HOUR, lock=LOCK, adopt=True)
    async def tune_squids(
        self, session: Session, *, args: list[Any] | None = None, log: bool | str = True
    ) -> dict[str, Any]:
        """Run the script that tunes the SQUIDs: `scripts/pysmurf/tune_squids.py` under OCS_CONFIG_DIR."""
        return await self._scripts.run(session, self._setting.tuning_script, args or (), log)

    @operation(name="abort", timeout=2 * MINUTE)
    async def abort_script(self, session: Session) -> dict[str, Any]:
        """Abort what holds the SMuRF now: a script, or any operation but `check_state`; like the verb `abort`.

        Gives the ids of the sessions that were aborted, once they have ended.
        """
        held = [each for each in self.sessions.values() if each.operation not in {session.operation, "check_state"}]
        if not held:
            raise NotRunningError(
                "there is nothing to abort",
                because="neither a script nor an operation is running on the SMuRF",
                cure="nothing is to be done",
            )
        for each in held:
            session.log(f"aborting {each.operation} ({each.id})")
        reason = f"operation abort, session {session.id}"
        await asyncio.gather(*(self.abort_session(each.id, reason=reason, by=session.by) for each in held))
        return {"aborted": [each.id for each in held]}

    # --- setting up --------------------------------------------------------------------------------------------------

    @operation(timeout=4 * HOUR, lock=LOCK, adopt=True)
    async def uxm_setup(
        self,
        session: Session,
        *,
        bands: Bands = None,
        kwargs: Options = None,
        run_in_main_process: bool = False,
    ) -> Any:
        """Set a UXM up for the first time, about 10 min for each band.

        That is amplifiers (1 min), then for each band attenuations and phase delay (1 min each), tune (7 min) and
        tracking (0.5 min), and at last noise (45 s). `bands` are those to set up (default: all), `kwargs` more
        arguments for sodetlib's `uxm_setup`. It always runs in a process of its own, whatever `run_in_main_process`
        says.
        """
        self._say_where(session, run_in_main_process=run_in_main_process)
        return await self._do(session, bands=bands, kwargs=kwargs)

    @operation(timeout=3 * HOUR, lock=LOCK, adopt=True)
    async def uxm_relock(
        self,
        session: Session,
        *,
        bands: Bands = None,
        kwargs: Options = None,
        run_in_main_process: bool = False,
    ) -> Any:
        """Lock the detectors to the tune of before, about 5 min for each band.

        `all_det_num` and `good_det_num` count them by band; a band with too few good ones is an alarm on the feed
        `tracking_results`. `bands` and `kwargs` as for `uxm_setup`.
        """
        self._say_where(session, run_in_main_process=run_in_main_process)
        return self._feeds.tracking(await self._do(session, bands=bands, kwargs=kwargs))

    # --- taking data -------------------------------------------------------------------------------------------------

    @operation(timeout=HOUR, lock=LOCK, adopt=True)
    async def take_noise(
        self, session: Session, duration: Seconds = 30.0, kwargs: Options = None, tag: str | None = None
    ) -> Any:
        """Take a time stream of `duration` seconds and fit the white noise level of each channel, in pA/rtHz.

        `tag` is attached to the stream and counts before one in `kwargs`, the arguments for sodetlib's `take_noise`.
        """
        result = await self._do(session, duration=duration, kwargs=kwargs, tag=tag)
        return self._feeds.quantiles("noise_results", result)

    @operation(timeout=HOUR, lock=LOCK, adopt=True)
    async def take_bgmap(self, session: Session, kwargs: Options = None, tag: str | None = None) -> Any:
        """Find out which channel hangs on which bias group; the last of `nchans_per_bg` counts those on none."""
        return await self._do(session, kwargs=kwargs, tag=tag)

    @operation(timeout=2 * HOUR, lock=LOCK, adopt=True)
    async def take_iv(self, session: Session, kwargs: Options = None, tag: str | None = None) -> Any:
        """Take current-voltage curves; quantiles of the normal resistance (ohm) and the saturation power (W)."""
        result = await self._do(session, kwargs=kwargs, tag=tag)
        return self._feeds.quantiles("iv_results", result)

    @operation(timeout=HOUR, lock=LOCK, adopt=True)
    async def take_bias_steps(
        self,
        session: Session,
        kwargs: Options = None,
        rfrac_range: Shares = (0.2, 0.9),
        tag: str | None = None,
    ) -> Any:
        """Step the biases a little; counts, in all and by group, detectors whose Rfrac lies in `rfrac_range`."""
        result = await self._do(session, kwargs=kwargs, rfrac_range=rfrac_range, tag=tag)
        return self._feeds.quantiles("bias_step_results", result)

    @operation(timeout=HOUR, lock=LOCK, adopt=True)
    async def take_bias_waves(
        self,
        session: Session,
        kwargs: Options = None,
        rfrac_range: Shares = (0.2, 0.9),
        tag: str | None = None,
    ) -> Any:
        """Do as `take_bias_steps` does, with a sine in place of a step."""
        result = await self._do(session, kwargs=kwargs, rfrac_range=rfrac_range, tag=tag)
        return self._feeds.quantiles("bias_wave_results", result)

    # --- biases ------------------------------------------------------------------------------------------------------

    @operation(timeout=30 * MINUTE, lock=LOCK, adopt=True)
    async def overbias_tes(self, session: Session, bgs: Groups = None, kwargs: Options = None) -> Any:
        """Drive the detectors of these bias groups (default: all active ones) normal for a moment."""
        return await self._do(session, bgs=bgs, kwargs=kwargs)

    @operation(timeout=30 * MINUTE, lock=LOCK, adopt=True)
    async def bias_dets(self, session: Session, rfrac: Share | Shares = (0.3, 0.6), kwargs: Options = None) -> Any:
        """Bias detectors into their transition: to the Rfrac given, or so that most are inside the range given."""
        return await self._do(session, rfrac=rfrac, kwargs=kwargs)

    @operation(timeout=5 * MINUTE, lock=LOCK, adopt=True)
    async def set_biases(self, session: Session, bias: Volts | list[Volts], bgs: Groups = None) -> Any:
        """Set bias voltages (V): one for all groups given (default: all 12), or a list with one for each."""
        return await self._do(session, biases=biases_by_group(bias, bgs))

    @operation(timeout=5 * MINUTE, lock=LOCK, adopt=True)
    async def zero_biases(self, session: Session, bgs: Groups = None) -> Any:
        """Set the bias voltages of these groups (default: all 12) to zero; done only once the hardware was told."""
        return await self._hardware.do(session, "set_biases", {"biases": biases_by_group(0.0, bgs)})

    @operation(timeout=5 * MINUTE, lock=LOCK, adopt=True)
    async def all_off(self, session: Session, *, disable_amps: bool = True, disable_tones: bool = True) -> Any:
        """Turn off tones and flux ramp, and the amplifiers' biases."""
        return await self._do(session, disable_amps=disable_amps, disable_tones=disable_tones)

    # --- around it ---------------------------------------------------------------------------------------------------

    @operation(timeout=2 * MINUTE, lock=LOCK, adopt=True)
    async def restart_rssi(self, session: Session) -> Any:
        """Restart the link to the board's registers; fails if they do not answer afterwards."""
        return await self._do(session)

    @operation(timeout=MINUTE)
    async def run_test_func(self, session: Session) -> Any:
        """Run a function without hardware in a process of its own, to see that this works."""
        return await self._do(session)

    @process(startup=True, grace=5.0)
    async def check_state(
        self, session: Session, *, poll_interval: Seconds | None = None, test_mode: bool = False
    ) -> None:
        """Read what the SMuRF does, every `poll_interval` seconds; changes nothing, and runs beside all else.

        While the SMuRF does not answer, `reachable` is false, `last_error` says why, and it is tried again. With
        `test_mode` it is read once.
        """
        if self._known_stream_id:
            session.update(stream_id=self._known_stream_id)
        every_s = self.poll_interval if poll_interval is None else poll_interval
        await self._hardware.watch(session, every_s, test_mode=test_mode, tell=self._feeds.state)

    @process(lock=LOCK, adopt=True, grace=STREAM_OFF_S)
    async def stream(
        self,
        session: Session,
        *,
        duration: Seconds | None = None,
        kwargs: Options = None,
        load_tune: bool = True,
        stream_type: Literal["obs", "oper"] = "obs",
        subtype: str | None = None,
        tag: str | None = None,
        test_mode: bool = False,
    ) -> Any:
        """Stream data until stopped, or for `duration` seconds; `stream_on` tells when data flow.

        The stream is tagged `<stream_type>,<subtype>,<tag>`. `kwargs` are more arguments for sodetlib's
        `stream_g3_on`.
        """
        tags = ",".join(part for part in (stream_type, subtype, tag) if part)
        return await self._do(
            session, duration=duration, kwargs=kwargs, load_tune=load_tune, tag=tags, test_mode=test_mode
        )

    # --- inside ------------------------------------------------------------------------------------------------------

    @property
    def _known_stream_id(self) -> str | None:
        """What the stream_id is taken to be before the SMuRF itself has said it."""
        known = self.labels.get("stream_id")
        return simulated_stream_id(self._slot, self.labels) if known is None and self._simulate else known

    async def _do(self, session: Session, **params: Any) -> Any:
        return await self._hardware.do(session, session.operation, params)

    def _note_lost_file(self, path: str, error: str) -> None:
        self.log.warning("a file was not catalogued", path=path, error=error)

    @staticmethod
    def _say_where(session: Session, *, run_in_main_process: bool) -> None:
        if run_in_main_process:
            session.log("it runs in a process of its own all the same, so that it can be aborted")
