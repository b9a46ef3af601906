"""Asking a site's code in processes of its own, whatever that code does: real processes, really killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from textwrap import dedent

import psutil
import pytest

from labwright.core.errors import (
    NotFoundError,
    ParameterError,
    SelectorError,
    SiteError,
    TerminalError,
    TransientError,
)
from labwright.run.settings import Settings, load_settings
from labwright.run.site import DecidedEvent
from labwright.run.site_host import PoisonedError, SiteHost
from tests.run.site_support import NOW, RULES, TASKS, event, write_site
from tests.support.waiting import until

HARMFUL = """
    import ctypes
    import os
    import re
    import sys
    import time
    from labwright.decide.conditions import event_type
    from labwright.decide.rules import rule

    @rule(event_type("exit"))
    def leaves(scenario):
        os._exit(3)

    @rule(event_type("sys-exit"))
    def leaves_politely(scenario):
        sys.exit(4)

    @rule(event_type("loop"))
    def never_ends(scenario):
        while True:
            pass

    @rule(event_type("crash"))
    def crashes_in_c(scenario):
        ctypes.string_at(0)

    @rule(event_type("keeps-the-lock"))
    def hangs_in_c(scenario):
        re.match("(a+)+$", "a" * 60 + "b")  # backtracks for ever, in C, with the interpreter's lock

    @rule(event_type("slow"))
    def slow(scenario):
        time.sleep(0.6)

    @rule(event_type("talks"))
    def talks(scenario):
        print("x" * 100_000)
        sys.stdout.flush()
        os.write(1, b"noise")
"""


def processes_of(folder: Path) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if str(folder) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def branches_of(folder: Path) -> list[psutil.Process]:
    everybody = processes_of(folder)
    return [process for process in everybody if process.ppid() in {each.pid for each in everybody}]


@pytest.fixture
def harmful(tmp_path: Path) -> Settings:
    return write_site(tmp_path, rules=RULES, tasks=TASKS, harmful=HARMFUL)


async def test_an_event_is_decided_with_reasons_and_runs(harmful: Settings) -> None:
    async with SiteHost(harmful) as host:
        decided = await host.decide(event(sample="lysozyme"), NOW)

    outcomes = {rule["rule"]: rule["outcome"] for rule in decided.decision["rules"]}
    assert outcomes["mylab.rules:reduce"] == "fired"
    assert outcomes["mylab.harmful:leaves"] == "not_matched"
    assert all(rule["reasons"] for rule in decided.decision["rules"])
    assert decided.decision["at"] == "2026-01-02T03:04:05Z"
    assert decided.decision["requests"][0]["params"] == {"name": "lysozyme"}
    assert [run.request for run in decided.runs] == [0]
    assert processes_of(harmful.folder) == []


async def test_a_decision_is_the_same_as_in_the_own_process(harmful: Settings) -> None:
    from labwright.run.site import decide_event, load_site

    path = list(sys.path)
    site = load_site(harmful)
    sys.path[:] = path
    async with SiteHost(harmful) as host:
        for number, beam in enumerate(["on", "off", "on", None]):
            asked = event(number=number, beam=beam)
            assert await host.decide(asked, NOW) == await decide_event(site, asked, NOW)


async def test_the_description_tells_what_is_loaded(harmful: Settings) -> None:
    (harmful.folder / "targets.yaml").write_text("- name: pump-1")
    async with SiteHost(harmful) as host:
        assert len(host.description.rules) == 8
        assert [target.name for target in host.description.targets] == ["pump-1"]


async def test_a_site_that_does_not_load_is_refused_with_its_findings(tmp_path: Path) -> None:
    settings = write_site(tmp_path, a="1 / 0", b="import nothing_of_that_name")

    with pytest.raises(SiteError) as refusal:
        await SiteHost(settings).start()

    assert len(refusal.value.findings) == 2
    assert processes_of(tmp_path) == []


async def test_code_that_ends_the_process_while_it_is_loaded_is_a_finding(tmp_path: Path) -> None:
    settings = write_site(tmp_path, a="import os\nos._exit(7)")

    with pytest.raises(SiteError, match="cannot be loaded") as refusal:
        await SiteHost(settings).start()

    assert "exit code 7" in refusal.value.findings[0]


async def test_parameters_selectors_targets_and_facts_are_answered(tmp_path: Path) -> None:
    (tmp_path / "targets.yaml").write_text("- {name: pump-1, labels: {crate: 1}}\n- {name: pump-2, labels: {crate: 2}}")
    (tmp_path / "facts.yaml").write_text("s1: {kind: 3, sample: x}")
    async with SiteHost(write_site(tmp_path, rules=RULES, tasks=TASKS)) as host:
        assert await host.validate("greet", {"name": "Ada"}) == {"name": "Ada"}
        assert await host.resolve("crate=1") == ["pump-1"]
        assert await host.resolve("crate=3") == []
        assert list(await host.targets()) == ["pump-1", "pump-2"]
        assert await host.facts("s1") == {"kind": 3, "sample": "x"}
        with pytest.raises(ParameterError):
            await host.validate("greet", {"nam": 1})
        with pytest.raises(NotFoundError) as refusal:
            await host.validate("gret", {})
        assert "greet" in refusal.value.cure
        with pytest.raises(SelectorError) as unreadable:
            await host.resolve("crate=,")
        assert unreadable.value.position == 6


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("exit", "exit code 3"),
        ("sys-exit", "exit code 4"),
        ("crash", "SIGSEGV"),
        ("loop", "longer than 0.5 s"),
        ("keeps-the-lock", "longer than 0.5 s"),
    ],
)
async def test_an_event_that_ends_or_hangs_its_process_is_poisoned_after_three_tries_and_others_go_on(
    harmful: Settings, kind: str, how: str
) -> None:
    async with SiteHost(harmful, deadline_s=0.5) as host:
        poison = asyncio.create_task(host.decide(event(kind), NOW))
        others = [host.decide(event(number=number), NOW) for number in range(2, 300)]
        decided = await asyncio.gather(*others)
        with pytest.raises(PoisonedError) as refusal:
            await poison

        assert refusal.value.tries == 3
        assert how in refusal.value.error.message
        assert {each.decision["event"]["id"] for each in decided} == {f"e{number}" for number in range(2, 300)}
        assert (await host.decide(event(), NOW)).runs


async def test_a_poisoned_error_shows_where_the_code_hung(harmful: Settings) -> None:
    async with SiteHost(harmful, deadline_s=0.3) as host:
        for kind, function in (("loop", "never_ends"), ("crash", "string_at")):
            with pytest.raises(PoisonedError) as refusal:
                await host.decide(event(kind), NOW)
            assert function in refusal.value.error.traceback
            assert refusal.value.error.kind == "poisoned"


async def test_only_the_culprit_is_counted_when_several_do_harm(harmful: Settings) -> None:
    async with SiteHost(harmful, deadline_s=0.5) as host:
        kinds = ["exit", "loop", "crash", "scan.end", "talks"] * 2
        asked = [host.decide(event(kind, number), NOW) for number, kind in enumerate(kinds)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)

    for kind, outcome in zip(kinds, outcomes, strict=True):
        if kind in {"scan.end", "talks"}:
            assert not isinstance(outcome, BaseException), kind
        else:
            assert isinstance(outcome, PoisonedError)
            assert outcome.tries == 3


async def test_a_rule_that_hangs_does_not_hold_the_others_until_its_deadline(harmful: Settings) -> None:
    async with SiteHost(harmful, deadline_s=30) as host:
        hanging = asyncio.create_task(host.decide(event("loop"), NOW))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(8):
            await asyncio.gather(*(host.decide(event(number=number), NOW) for number in range(20)))
        assert not hanging.done()
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)


async def test_what_the_code_prints_goes_to_standard_error(
    harmful: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    async with SiteHost(harmful) as host:
        await host.decide(event("talks"), NOW)

    out, err = capfd.readouterr()
    assert out == ""
    assert "noise" in err


async def test_killing_the_branch_at_any_moment_loses_no_decision(harmful: Settings) -> None:
    decided: list[DecidedEvent] = []
    killed = 0
    async with SiteHost(harmful, deadline_s=5) as host:
        for first in range(0, 3000, 750):
            numbers = range(first, first + 750)
            asked = [asyncio.create_task(host.decide(event(number=number), NOW)) for number in numbers]
            kills = 0  # an event whose process was killed three times is given up, so two at a time
            while not all(each.done() for each in asked):
                await asyncio.sleep(0.03)
                for branch in branches_of(harmful.folder)[:1] if kills < 2 else ():
                    branch.kill()
                    kills += 1
            killed += kills
            decided += await asyncio.gather(*asked)

    assert killed > 2
    assert [each.decision["event"]["id"] for each in decided] == [f"e{number}" for number in range(3000)]


async def test_killing_the_process_that_loaded_the_site_loses_no_decision(harmful: Settings) -> None:
    async with SiteHost(harmful, deadline_s=5) as host:
        asked = [asyncio.create_task(host.decide(event(number=number), NOW)) for number in range(2000)]
        await asyncio.sleep(0.05)
        loaders = [process for process in processes_of(harmful.folder) if process.ppid() == os.getpid()]
        assert len(loaders) == 1
        loaders[0].kill()
        await asyncio.gather(*asked)
        assert (await host.decide(event(), NOW)).runs


async def test_processes_that_the_code_starts_end_with_it(tmp_path: Path) -> None:
    rules = """
        import subprocess
        from labwright.decide.rules import rule

        @rule
        def starts(scenario):
            subprocess.Popen(["sleep", scenario.marker])
    """
    marker = f"987{os.getpid()}"

    def sleepers() -> list[str]:
        return [str(each.info) for each in psutil.process_iter(["cmdline"]) if marker in str(each.info["cmdline"])]

    async with SiteHost(write_site(tmp_path, rules=rules)) as host:
        await host.decide(event(marker=marker), NOW)
        assert sleepers()
        branches_of(tmp_path)[0].kill()
        await until(lambda: not sleepers())
        await host.decide(event(marker=marker), NOW)
        assert sleepers()
    await until(lambda: not sleepers())


@pytest.mark.parametrize("kind", ["scan.end", "loop", "keeps-the-lock"])
def test_no_process_survives_the_parent_that_is_killed(harmful: Settings, kind: str) -> None:
    script = dedent(f"""
        import asyncio, sys
        from pathlib import Path
        sys.path.insert(0, {str(Path.cwd())!r})
        from labwright.run.settings import load_settings
        from labwright.run.site_host import SiteHost
        from tests.run.site_support import NOW, event

        async def main():
            async with SiteHost(load_settings(Path({str(harmful.folder)!r}), {{}})) as host:
                asking = asyncio.create_task(host.decide(event({kind!r}), NOW))
                await asyncio.sleep(0.3)
                print("ready", flush=True)
                await asyncio.sleep(60)

        asyncio.run(main())
    """)

    async def start_and_kill() -> None:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        assert len(processes_of(harmful.folder)) >= 2
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await until(lambda: not processes_of(harmful.folder), limit_s=3)

    asyncio.run(start_and_kill())


async def test_a_reload_that_fails_keeps_what_is_loaded_even_after_a_crash(harmful: Settings) -> None:
    async with SiteHost(harmful) as host:
        before = host.description
        (harmful.folder / "mylab" / "rules.py").write_text("def broken(:")

        with pytest.raises(SiteError) as refusal:
            await host.reload()
        assert "rules" in refusal.value.findings[0]
        assert host.description == before
        assert (await host.decide(event(), NOW)).runs

        for branch in branches_of(harmful.folder):
            branch.kill()
        assert (await host.decide(event(), NOW)).runs


async def test_a_reload_brings_the_new_code_and_what_is_under_way_ends_with_the_old(harmful: Settings) -> None:
    async with SiteHost(harmful) as host:
        before = host.description
        slow = asyncio.create_task(host.decide(event("slow"), NOW))
        await asyncio.sleep(0.05)
        write_site(harmful.folder, rules=RULES.replace('"greet"', '"great"'), harmful=HARMFUL.replace("0.6", "0.0"))

        described = await host.reload()
        decided = await host.decide(event(), NOW)

        assert described.revision != before.revision
        assert decided.decision["requests"][0]["task"] == "great"
        assert (await slow).decision["event"]["type"] == "slow"
        await until(lambda: len(processes_of(harmful.folder)) == 2)


async def test_a_reload_takes_new_settings(harmful: Settings) -> None:
    async with SiteHost(harmful) as host:
        write_site(harmful.folder, "[pools.fast]\nconcurrency = 3")

        described = await host.reload(load_settings(harmful.folder, {}))

        assert "fast" in {pool.name for pool in described.pools}


async def test_facts_are_looked_up_side_by_side(tmp_path: Path) -> None:
    sources = """
        import asyncio, time
        from labwright.facts.source import fact_source

        @fact_source("scan.*")
        async def awaited(event):
            await asyncio.sleep(0.3)

        @fact_source("scan.*")
        def blocking(event):
            time.sleep(0.3)
    """
    async with SiteHost(write_site(tmp_path, rules=RULES, tasks=TASKS, sources=sources)) as host:
        started = time.monotonic()
        await asyncio.gather(*(host.decide(event(number=number), NOW) for number in range(30)))
        assert time.monotonic() - started < 3


async def test_errors_of_facts_come_as_they_are(tmp_path: Path) -> None:
    sources = """
        from labwright.core.errors import TransientError
        from labwright.facts.source import fact_source

        @fact_source("busy")
        def busy(event):
            raise TransientError("the database is away", retry_after=30)

        @fact_source("broken")
        def broken(event):
            raise KeyError("dcid")
    """
    async with SiteHost(write_site(tmp_path, rules=RULES, sources=sources)) as host:
        with pytest.raises(TransientError, match="database is away") as transient:
            await host.decide(event("busy"), NOW)
        assert transient.value.retry_after == 30
        with pytest.raises(TerminalError, match=r"mylab\.sources:broken"):
            await host.decide(event("broken"), NOW)


async def test_a_fact_source_that_blocks_all_others_is_the_culprit(tmp_path: Path) -> None:
    sources = """
        import asyncio
        from labwright.facts.source import fact_source

        @fact_source("blocks")
        async def blocks(event):
            await asyncio.sleep(0)
            while True:
                pass

        @fact_source("scan.*")
        async def waits(event):
            await asyncio.sleep(0.05)
    """
    async with SiteHost(write_site(tmp_path, rules=RULES, tasks=TASKS, sources=sources), deadline_s=0.5) as host:
        asked = [host.decide(event("blocks" if number == 5 else "scan.end", number), NOW) for number in range(10)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)

    assert [number for number, outcome in enumerate(outcomes) if isinstance(outcome, PoisonedError)] == [5]
    assert not [each for each in outcomes if isinstance(each, BaseException) and not isinstance(each, PoisonedError)]


async def test_a_target_source_that_fails_is_told_in_the_description_and_does_not_stop_the_site(tmp_path: Path) -> None:
    sources = """
        from labwright.facts.targets import target_source

        @target_source
        def pumps():
            raise OSError("the registry is away")
    """
    async with SiteHost(write_site(tmp_path, rules=RULES, tasks=TASKS, sources=sources)) as host:
        assert "the registry is away" in host.description.findings[0]
        assert (await host.decide(event(), NOW)).runs


async def test_a_target_source_that_takes_its_process_down_leaves_what_it_told_before(tmp_path: Path) -> None:
    sources = """
        import os
        from pathlib import Path
        from labwright import target_source

        @target_source(every=300)
        async def pumps():
            if (Path(__file__).parent / "crashes").exists():
                os._exit(3)
            return [{"name": "pump-1"}]
    """
    (tmp_path / ".labwright").mkdir()
    async with SiteHost(write_site(tmp_path, rules=RULES, tasks=TASKS, sources=sources)) as host:
        assert list(await host.targets()) == ["pump-1"]
        (tmp_path / "mylab" / "crashes").touch()
        await host.reload()
        assert list(await host.targets()) == ["pump-1"]


async def test_many_events_at_once_are_all_answered(harmful: Settings) -> None:
    async with SiteHost(harmful) as host:
        decided = await asyncio.gather(*(host.decide(event(number=number), NOW) for number in range(2000)))

    assert [each.decision["event"]["id"] for each in decided] == [f"e{number}" for number in range(2000)]


async def test_a_cancelled_question_harms_nobody(harmful: Settings) -> None:
    async with SiteHost(harmful) as host:
        asked = [asyncio.create_task(host.decide(event(number=number), NOW)) for number in range(100)]
        await asyncio.sleep(0)
        for each in asked[::2]:
            each.cancel()
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in outcomes[::2])
        assert not any(isinstance(each, BaseException) for each in outcomes[1::2])


async def test_a_killed_site_that_does_not_load_any_more_is_a_transient_error_until_it_is_mended(
    harmful: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labwright.run.site_host.RESTART_S", 0.2)
    async with SiteHost(harmful) as host:
        (harmful.folder / "mylab" / "rules.py").write_text("def broken(:")
        for process in processes_of(harmful.folder):
            process.kill()
        await until(lambda: not processes_of(harmful.folder))

        for _ in range(3):
            with pytest.raises(TransientError, match="does not load any more") as refusal:
                await host.decide(event(), NOW)
            assert "rules" in refusal.value.because
            assert refusal.value.retry_after is not None

        write_site(harmful.folder, rules=RULES)
        await asyncio.sleep(0.3)
        assert (await host.decide(event(), NOW)).runs


async def test_who_takes_over_the_branch_of_a_cancelled_question_is_not_blamed(harmful: Settings) -> None:
    async with SiteHost(harmful, deadline_s=0.4) as host:
        hanging = [asyncio.create_task(host.decide(event("loop", number), NOW)) for number in range(2)]
        await asyncio.sleep(1.2)
        for each in hanging:
            each.cancel()
        decided = await asyncio.gather(*(host.decide(event(number=number), NOW) for number in range(20)))
        assert all(each.runs for each in decided)


async def test_crashes_and_reloads_leave_no_descriptor_task_or_process_behind(harmful: Settings) -> None:
    async with SiteHost(harmful) as host:
        await host.decide(event(), NOW)
        with pytest.raises(PoisonedError):
            await host.decide(event("exit"), NOW)
        await host.decide(event(), NOW)
        us = psutil.Process()
        before, tasks = us.num_fds(), len(asyncio.all_tasks())
        for number in range(10):
            with pytest.raises(PoisonedError):
                await host.decide(event("exit", number), NOW)
            await host.decide(event(), NOW)
        for _ in range(2):
            await host.reload()
            await host.decide(event(), NOW)
        await until(lambda: len(processes_of(harmful.folder)) == 2)
        await until(lambda: us.num_fds() <= before)
        await until(lambda: len(asyncio.all_tasks()) <= tasks)


async def test_a_package_in_mimas_layout_is_decided_too(tmp_path: Path) -> None:
    folder = tmp_path / "mimas_x" / "implementors" / "tasks"
    folder.mkdir(parents=True)
    for package in (folder, folder.parent, folder.parent.parent):
        (package / "__init__.py").touch()
    (folder / "i03.py").write_text(
        dedent("""
        from zocalo.mimas.tasks import Tasks
        from zocalo.mimas.classes import MimasRecipeInvocation

        class i03(Tasks):
            beamline = "i03"
            def run(self, scenario):
                return [MimasRecipeInvocation(dcid=scenario.dcid, recipe="greet")]
        """)
    )
    settings = write_site(tmp_path, 'implementors = ["mimas_x"]', tasks=TASKS)
    asked = event("data_collection.end", dcid=7, beamline="i03", experiment_type="oscillation", run_status="success")

    async with SiteHost(settings, dialects=["labwright.compat.mimas:load_implementors"]) as host:
        decided = await host.decide(asked, NOW)

    assert [request["task"] for request in decided.decision["requests"]] == ["greet"], decided.decision
