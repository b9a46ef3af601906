"""The simulated SMuRF: scripts in sodetlib's idiom run on it, and what they find is what was seeded."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from labwright.instruments.pysmurf.simulated.detectors import R_SHUNT, detectors
from labwright.instruments.pysmurf.simulated.settings import BIAS_GROUPS
from labwright.instruments.pysmurf.simulated.streams import read_stream
from tests.instruments.smurf_support import (
    RESONATORS,
    STREAM,
    Heard,
    newest,
    results,
    run,
    seeded,
    smurf_environment,
    succeed,
)

Floats = NDArray[np.floating]


@pytest.fixture
def card(tuned: Path, tmp_path: Path) -> Path:
    """Give a tuned card of the test's own."""
    data = tmp_path / "data"
    shutil.copytree(tuned, data)
    for file in [*data.glob("config/*/*.yaml"), *data.glob("card/*.json")]:
        file.write_text(file.read_text().replace(str(tuned), str(data)))
    return data


def fitted(residual: Callable[[Floats], Floats], first: list[float]) -> Floats:
    """Fit parameters by least squares (Gauss-Newton with halved steps, numerical derivatives)."""
    at = np.array(first)
    for _ in range(60):
        now = residual(at)
        steps = np.diag(np.abs(at) * 1e-6 + 1e-12)
        slopes = np.stack([(residual(at + step) - now) / step.sum() for step in steps], axis=1)
        change = np.linalg.lstsq(slopes, -now, rcond=None)[0]
        while np.sum(residual(at + change) ** 2) > np.sum(now**2) and np.abs(change).max() > 1e-15:
            change = change / 2
        at = at + change
    return at


# --- physics ---------------------------------------------------------------------------------------------------------


def test_the_transition_is_found_in_the_file_of_an_iv(card: Path) -> None:
    succeed("iv.py", "--bias-step", "0.05", env=smurf_environment(card))

    of, iv = seeded(), results(newest(card, "*_iv_analysis.npy"))
    assert iv["bands"].tolist() == of.bands.tolist()
    assert iv["channels"].tolist() == of.channels.tolist()
    assert (iv["bgmap"] == of.bias_group).mean() > 0.98
    tested = 0
    for channel in np.flatnonzero(of.bias_group >= 0):
        bias, jump = iv["i_bias"], iv["idxs"][channel, 0]
        raw = iv["resp"][channel] * iv["polarity"][channel] * iv["meta"]["pA_per_phi0"] * 1e-12 / (2 * np.pi)
        top = bias > 0.9 * bias.max()
        slope, offset = np.polyfit(bias[top], raw[top], 1)
        current = raw - offset
        r_normal = R_SHUNT * (1 / slope - 1)
        power = (bias - current) * R_SHUNT * current
        fraction = R_SHUNT * (bias / current - 1) / r_normal
        p_sat = np.interp(0.9, fraction[jump + 1 :], power[jump + 1 :])
        assert r_normal / of.r_normal[channel] == pytest.approx(1, abs=0.05)
        assert p_sat / of.p_sat[channel] == pytest.approx(1, abs=0.05)
        assert iv["R_n"][channel] / of.r_normal[channel] == pytest.approx(1, abs=0.05)
        assert iv["p_sat"][channel] / of.p_sat[channel] == pytest.approx(1, abs=0.05)
        tested += 1
    assert tested > 80


def test_the_white_level_is_found_in_the_file_of_noise(card: Path) -> None:
    succeed("noise.py", "--acq-time", "300", env=smurf_environment(card))

    of, noise = seeded(), results(newest(card, "*_take_noise.npy"))
    frequencies, spectra = noise["f"], noise["axx"]
    chosen = (frequencies > 0.5) & (frequencies < 60)
    for channel in range(of.count):
        power = spectra[channel, chosen] ** 2

        def residual(at: Floats, power: Floats = power) -> Floats:
            model = at[0] ** 2 * (1 + np.abs(at[1]) / frequencies[chosen])
            return power / model - 1

        level, _knee = fitted(residual, [np.sqrt(np.median(power)), 0.1])
        assert level == pytest.approx(of.white_level[channel] * 1e12, rel=0.05)
    levels = noise["noise_pars"][:, 0]
    assert np.median(levels / (of.white_level * 1e12)) == pytest.approx(1, rel=0.05)
    medians = [np.median(of.white_level[of.bands == band]) * 1e12 for band in range(8)]
    assert noise["band_medians"] == pytest.approx(medians, rel=0.1)


def test_detectors_are_biased_into_their_transition(card: Path) -> None:
    output = succeed("iv.py", "--rfrac", "0.4", env=smurf_environment(card))

    steps = results(newest(card, "*_bias_step_analysis.npy"))
    on_a_line = steps["bgmap"] >= 0
    assert np.nanmedian(steps["Rfrac"][on_a_line]) == pytest.approx(0.4, abs=0.08)
    assert "biased" in output


def test_one_seed_gives_one_card_and_each_slot_has_its_own() -> None:
    one, same, other = detectors("a", 1, 20), detectors("a", 1, 20), detectors("b", 1, 20)

    assert np.array_equal(one.p_sat, same.p_sat)
    assert not np.array_equal(one.p_sat, other.p_sat)
    assert set(one.bias_group.tolist()) <= {*range(BIAS_GROUPS), -1}
    assert detectors("a", 1, 512).count == 4096


# --- scripts ---------------------------------------------------------------------------------------------------------


def test_a_tuning_script_finds_every_resonator_and_tells_its_session(heard: Heard, tmp_path: Path) -> None:
    output = succeed("tune.py", "--bands", "0", "5", env=smurf_environment(tmp_path, heard.variables))

    messages = heard.all()
    data = [message["payload"] for message in messages if message["type"] == "session_data"]
    logs = [message["payload"] for message in messages if message["type"] == "session_log"]
    files = [message["payload"] for message in messages if message["type"] == "data_file"]
    assert {"bands": {"5": {"channels": RESONATORS}}} in data
    assert data[-1]["channels_on"] == 2 * RESONATORS
    assert any("setup_amps_summary" in item and item["setup_amps_summary"]["success"] for item in data)
    assert "band 5 tuned" in logs
    assert f"{2 * RESONATORS} of {2 * RESONATORS} channels track well" in output
    assert [message["seq_no"] for message in messages] == list(range(len(messages)))
    assert (messages[0]["type"], messages[-1]["type"]) == ("start", "stop")
    assert {message["id"] for message in messages} == {"pysmurf-s3"}
    assert all(Path(file["path"]).exists() for file in files)
    assert {"tune", "channel_assignment", "config", "tracking"} <= {file["type"] for file in files}


def test_outputs_are_laid_out_as_on_the_real_machine(card: Path, heard: Heard) -> None:
    succeed("noise.py", env=smurf_environment(card, heard.variables))

    files = [message["payload"] for message in heard.all() if message["type"] in {"data_file", "g3_file"}]
    places = [Path(file["path"]).relative_to(card).parts for file in files]
    noise = next(place for place in places if place[-1].endswith("take_noise.npy"))
    root, date, stream, begun, folder, name = noise
    assert (root, stream, folder) == ("smurf_data", STREAM, "outputs")
    assert (len(date), len(begun), date.isdigit(), begun.isdigit()) == (8, 10, True, True)
    assert name.partition("_")[0].isdigit()
    [plot] = [file for file in files if file["plot"]]
    assert Path(plot["path"]).parent.name == "plots"
    assert Path(plot["path"]).read_bytes().startswith(b"\x89PNG")
    g3 = [place for place in places if place[-1].endswith(".g3")]
    assert all(place[:2] == ("so", "timestreams") and place[2] == place[4][:5] and place[3] == STREAM for place in g3)
    assert any(file["action"] == "take_noise" and file["action_ts"] for file in files)


def test_a_stream_tells_what_it_is_and_how_much_of_it_is_kept(card: Path) -> None:
    succeed("noise.py", env=smurf_environment(card))

    [*_, path] = sorted((card / "so" / "timestreams").rglob("*.g3"))
    header, stream = read_stream(path)
    assert header["stream_id"] == STREAM
    assert header["tags"] == ["obs", "stream"]
    assert 10 * 200 <= header["samples_taken"] < 60 * 200  # what the test itself takes is streamed, too
    assert stream.signal.shape == (8 * RESONATORS, header["samples_kept"])
    assert len(stream.timestamps) == header["samples_kept"]


def test_what_is_set_outlives_the_script_and_is_seen_by_another(card: Path, tmp_path: Path) -> None:
    script = tmp_path / "set.py"
    script.write_text("""
import sys
from sodetlib.det_config import DetConfig
import sodetlib as sdl
cfg = DetConfig()
cfg.load_config_files()
S = cfg.get_smurf_control()
if sys.argv[1] == "set":
    S.set_tes_bias_bipolar_array([1.5] * 12)
    sid = sdl.stream_g3_on(S, tag="cmb")
else:
    assert S.get_tes_bias_bipolar_array().tolist() == [1.5] * 12 + [0.0] * 3
    registers = sdl.Registers(S)
    assert registers.open_g3stream.get() == 1 and registers.stream_tag.get(as_string=True) == "obs,stream,cmb"
    assert len(S.get_channel_mask(retry_on_fail=False)) == S.streaming().sum() > 0
    sdl.stream_g3_off(S)
    assert registers.g3_session_id.get() == 0
    S.all_off()
    assert S.get_tes_bias_bipolar(3) == 0 and len(S.which_on(0)) == 0
""")
    succeed(script, "set", env=smurf_environment(card))
    succeed(script, "look", env=smurf_environment(card))


def test_setup_and_relock_tell_the_session_object_that_they_are_given(tmp_path: Path) -> None:
    script = tmp_path / "given.py"
    script.write_text("""
import json
from sodetlib.det_config import DetConfig
from sodetlib.operations import uxm_relock, uxm_setup
class Session:
    status = "running"
    data = {}
    messages = []
    def add_message(self, text):
        self.messages.append(text)
cfg = DetConfig(slot=3)
cfg.load_config_files()
S = cfg.get_smurf_control()
S._ocs_session = Session()
ok, summary = uxm_setup.uxm_setup(S, cfg, bands=[0, 1])
assert ok
steps = [name for name, _ in S._ocs_session.data["timestamps"]]
assert steps[:4] == ["setup_amps", "estimate_attens", "setup_phase_delay", "setup_tune"]
assert steps[4:] == ["setup_tracking_params", "noise", "end"]
assert S._ocs_session.data["setup_phase_delay"]["bands"] == [0, 1]
ok, summary = uxm_relock.uxm_relock(S, cfg, bands=1)
results = summary["tracking_setup_results"]
assert ok and set(results.bands.tolist()) == {1} and results.is_good.all()
S._ocs_session.status = "stopping"
try:
    uxm_relock.uxm_relock(S, cfg)
except RuntimeError as error:
    print("stopped:", error)
""")
    assert "stopped: the session was asked to stop" in succeed(script, env=smurf_environment(tmp_path))


def test_a_configuration_of_several_slots_is_read(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.mkdir()
    (config / "sys_config.yml").write_text("""
slot_order: [3, 4]
slots:
  SLOT[3]: {stream_id: satp1_slot3, device_config: $OCS_CONFIG_DIR/dev3.yaml}
  SLOT[4]: {stream_id: satp1_slot4, device_config: $OCS_CONFIG_DIR/dev4.yaml}
""")
    (config / "dev4.yaml").write_text("""
experiment: {active_bgs: [0, 1]}
bands: {"AMC[0]": {tone_power: [10, 11, 12, 13]}, "AMC[1]": {tone_power: [14, 15, 16, 17]}}
bias_groups: {cool_voltage: [1, 2]}
""")
    script = tmp_path / "show.py"
    script.write_text("""
from sodetlib.det_config import DetConfig
cfg = DetConfig()
args = cfg.parse_args(args=["--slot", "4"])
print(cfg.stream_id, cfg.dev.exp["active_bgs"], [b["tone_power"] for b in cfg.dev.bands], cfg.dev.bias_groups[1])
cfg.dev.update_experiment({"tunefile": "/a/tune.npy"}, update_file=True)
again = DetConfig()
again.load_config_files(slot=4)
assert again.dev.exp["tunefile"] == "/a/tune.npy" and again.dev.bands[7]["tone_power"] == 17
again.load_config_files(slot=9)
""")
    ended = run(script, env=smurf_environment(tmp_path))
    assert "satp1_slot4 [0, 1] [10, 11, 12, 13, 14, 15, 16, 17]" in ended.stdout.decode()
    assert "has no SLOT[9]; it has SLOT[3], SLOT[4]" in ended.stderr.decode()


def test_without_tones_there_is_nothing_to_measure(tmp_path: Path) -> None:
    script = tmp_path / "early.py"
    script.write_text("""
import sodetlib as sdl
cfg = sdl.DetConfig(); cfg.load_config_files(); S = cfg.get_smurf_control()
sdl.noise.take_noise(S, cfg, 1)
""")
    ended = run(script, env=smurf_environment(tmp_path))
    assert ended.returncode == 1
    assert b"run uxm_setup or relock first" in ended.stderr


def test_agents_do_not_need_numpy() -> None:
    code = """
import sys
import labwright.instruments.pysmurf.monitor, labwright.instruments.pysmurf.simulated
assert "numpy" not in sys.modules
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
