"""Sites: what is collected from their modules, what is refused, and decisions made with them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from labwright.core.errors import NotFoundError, SiteError, TerminalError, TransientError
from labwright.core.request import Request
from labwright.decide.conditions import ALWAYS
from labwright.decide.rules import Rule
from labwright.run.settings import load_settings
from labwright.run.site import decide_event, find_task, load_site, look_up
from tests.run.site_support import NOW, RULES, TASKS, event, write_site

BUILTIN = ["fleet-call", "fleet-run", "ispyb-job"]


@dataclass(frozen=True)
class Dialect:
    """What a loader of another system's packages gives."""

    rules: tuple[Rule, ...] = ()
    triggers: Mapping[str, Any] = field(default_factory=dict[str, Any])
    findings: tuple[str, ...] = ()


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Leave the path as it was; the modules of the next site replace those of this one."""
    path = list(sys.path)
    yield
    sys.path[:] = path


def findings_of(settings: Any, **options: Any) -> str:
    with pytest.raises(SiteError) as refusal:
        load_site(settings, **options)
    assert refusal.value.findings
    return "\n".join(refusal.value.findings)


def test_a_folder_without_a_package_is_a_site_with_the_builtin_tasks(tmp_path: Path) -> None:
    site = load_site(load_settings(tmp_path, {}))

    assert list(site.tasks) == BUILTIN
    assert len(site.rules) == 0
    assert list(tmp_path.iterdir()) == []


def test_definitions_are_collected_from_all_modules_but_tests(tmp_path: Path) -> None:
    settings = write_site(
        tmp_path,
        rules=RULES,
        beamlines__i03__tasks=TASKS,
        tests__broken="raise RuntimeError",
        test_broken="raise RuntimeError",
        again="from mylab.rules import reduce as imported",
        sources="""
            from labwright.facts.source import fact_source
            from labwright.facts.targets import target_source
            from labwright.plan.providers import provides

            @fact_source("scan.*")
            def samples(event):
                return {"sample": event.subject}

            @target_source
            def pumps():
                return [{"name": "pump-1", "labels": {"crate": 1}}]

            @provides("http")
            async def http(target):
                yield None

            class Instrument:
                name = "instrument"
                pattern = "scan.*"
                async def facts(self, event):
                    return {"voltage": 3}

            instrument = Instrument()
        """,
    )

    site = load_site(settings)

    assert [rule.name for rule in site.rules] == ["mylab.rules:reduce"]
    assert list(site.tasks) == [*BUILTIN, "greet"]
    assert [source.name for source in site.fact_sources] == ["mylab.sources:samples", "instrument"]
    assert [source.name for source in site.target_sources] == ["mylab.sources:pumps"]
    assert list(site.providers) == ["http"]


def test_a_site_describes_itself(tmp_path: Path) -> None:
    settings = write_site(tmp_path, "[pools.fast]\nconcurrency = 2", rules=RULES, tasks=TASKS)
    site = load_site(settings)

    described = site.describe()

    assert described.rules[0].doc == "Reduce every scan."
    assert "beam" in described.rules[0].condition
    assert {pool.name: pool.concurrency for pool in described.pools} == {"default": 64, "fast": 2, "fleets": 64}
    assert [task.name for task in described.tasks] == [*BUILTIN, "greet"]
    assert type(described).model_validate_json(described.model_dump_json(by_alias=True)) == described


def test_the_revision_changes_with_the_files_and_with_nothing_else(tmp_path: Path) -> None:
    settings = write_site(tmp_path, rules=RULES, tasks=TASKS)
    first = load_site(settings).revision

    assert load_site(settings).revision == first
    assert load_site(write_site(tmp_path, tasks=TASKS + "    # changed")).revision != first


def test_two_sites_of_the_same_package_name_do_not_mix(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        site = load_site(write_site(tmp_path / name, tasks=TASKS.replace('"greet"', f'"{name}"')))
        assert list(site.tasks) == [*BUILTIN, name]


def test_every_finding_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "targets.yaml").write_text("- labels: 3")
    (tmp_path / "facts.yaml").write_text("[1]")
    settings = write_site(
        tmp_path,
        'recipes = ["absent"]\n[facts]\nispyb = "no url"',
        rules=RULES,
        a="def fail():\n    raise KeyError('x')\nfail()",
        b="import sys\nsys.exit('no licence')",
        c="def broken(:",
        d="import not_installed_anywhere",
    )

    found = findings_of(settings)

    assert "mylab.a cannot be imported: KeyError: 'x'" in found
    assert "a.py:2 in fail" in found
    assert "mylab.b cannot be imported: SystemExit: no licence" in found
    assert "SyntaxError" in found
    assert "not_installed_anywhere" in found
    assert "targets.yaml" in found
    assert "facts.yaml" in found
    assert "site.recipes names 'absent'" in found
    assert "ispyb" in found.lower() or "url" in found.lower()


def test_a_package_that_does_not_exist_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "labwright.toml").write_text('[site]\npackage = "nowhere"')

    assert "nowhere cannot be imported" in findings_of(load_settings(tmp_path, {}))


def test_a_name_twice_within_one_kind_is_refused_with_both_places(tmp_path: Path) -> None:
    found = findings_of(write_site(tmp_path, tasks=TASKS, more=TASKS, rules=RULES))

    assert found == "two tasks are named 'greet': mylab.more.greeting and mylab.tasks.greeting"


def test_the_name_of_a_builtin_task_is_taken(tmp_path: Path) -> None:
    assert "labwright itself" in findings_of(write_site(tmp_path, tasks=TASKS.replace('"greet"', '"ispyb-job"')))


def test_a_rule_that_a_later_one_in_the_file_replaces_is_a_finding(tmp_path: Path) -> None:
    twice = RULES + "\n    @rule\n    def reduce(scenario):\n        return None\n"

    assert "reduce is defined in line 7 and again in line" in findings_of(write_site(tmp_path, rules=twice))


def test_dialects_load_the_implementors(tmp_path: Path) -> None:
    asked: list[Sequence[str]] = []

    def dialect(packages: Sequence[str]) -> Dialect:
        asked.append(packages)
        return Dialect(rules=(Rule("mimas_x:a", ALWAYS, lambda _: None),), triggers={"a": int})

    settings = write_site(tmp_path, 'implementors = ["mimas_x"]', rules=RULES)

    site = load_site(settings, dialects=[dialect])

    assert asked == [("mimas_x",)]
    assert [rule.name for rule in site.rules] == ["mimas_x:a", "mylab.rules:reduce"]
    assert site.triggers == (("a", int),)
    assert "nothing here can load" in findings_of(settings)
    assert "broken file" in findings_of(settings, dialects=[lambda _: Dialect(findings=("broken file",))])


async def test_an_event_is_looked_up_and_decided(tmp_path: Path) -> None:
    (tmp_path / "facts.yaml").write_text("s1: {sample: lysozyme}")
    site = load_site(write_site(tmp_path, rules=RULES, tasks=TASKS))

    looked_up = await look_up(site, event())
    decided = await decide_event(site, event(), NOW)

    assert looked_up.scenario.sample == "lysozyme"
    assert decided.decision["rules"][0]["outcome"] == "fired"
    assert decided.decision["requests"][0]["params"] == {"name": "lysozyme"}
    assert [(run.request, run.target, run.error) for run in decided.runs] == [(0, None, None)]


async def test_a_request_that_cannot_run_becomes_a_run_that_fails_and_says_why(tmp_path: Path) -> None:
    rules = """
        from labwright.core.request import Request
        from labwright.decide.rules import rule

        @rule
        def ask(scenario):
            yield Request("greet")
            yield Request("gret", name="a")
            yield Request("greet", name="a", on="nowhere")
            yield Request("greet", name="a", on="pump-1")
    """
    (tmp_path / "targets.yaml").write_text("- name: pump-1")
    site = load_site(write_site(tmp_path, rules=rules, tasks=TASKS))

    runs = (await decide_event(site, event(), NOW)).runs

    assert [run.error.kind if run.error else None for run in runs] == ["usage", "not_found", "not_found", None]
    assert runs[1].error is not None
    assert "'greet'" in runs[1].error.cure
    assert runs[3].target == "pump-1"


async def test_targets_are_read_again_when_the_file_changes(tmp_path: Path) -> None:
    site = load_site(write_site(tmp_path, rules=RULES))
    assert await site.targets() == {}

    (tmp_path / "targets.yaml").write_text("- name: pump-1")
    assert list(await site.targets()) == ["pump-1"]

    (tmp_path / "targets.yaml").write_text("- name: pump-1\n- name: pump-2")
    assert list(await site.targets()) == ["pump-1", "pump-2"]

    (tmp_path / "targets.yaml").write_text("- nam: pump-1")
    with pytest.raises(SiteError):
        await site.targets()


@pytest.mark.parametrize(("fails_with", "expected"), [("OSError", TransientError), ("KeyError", TerminalError)])
async def test_a_target_source_that_fails_says_whether_it_may_work_later(
    tmp_path: Path, fails_with: str, expected: type[Exception]
) -> None:
    text = f"""
        from labwright.facts.targets import target_source

        @target_source
        def pumps():
            raise {fails_with}("no")
    """
    site = load_site(write_site(tmp_path, sources=text))

    with pytest.raises(expected, match=r"mylab\.sources:pumps"):
        await site.targets()


COUNTED = """
        import asyncio
        from pathlib import Path
        from labwright import target_source

        HERE = Path(__file__).parent

        @target_source(every={every})
        {kind} pumps():
            count = int((HERE / "count").read_text()) if (HERE / "count").exists() else 0
            (HERE / "count").write_text(str(count + 1))
            if (HERE / "hangs").exists():
                {hang}
            if (HERE / "fails").exists():
                raise OSError("the inventory is away")
            return [{{"name": f"pump-{{count}}", "labels": {{"crate": 1}}}}]
"""


def counted(every: float = 1e-6, kind: str = "async def", hang: str = "await asyncio.sleep(60)") -> str:
    return COUNTED.format(every=every, kind=kind, hang=hang)


async def test_a_target_source_is_asked_again_as_often_as_it_says(tmp_path: Path) -> None:
    site = load_site(write_site(tmp_path, sources=counted(every=300)))
    assert [list(await site.targets()) for _ in range(3)] == [["pump-0"]] * 3
    (tmp_path / ".labwright").mkdir()
    site = load_site(site.settings)
    assert list(await site.targets()) == ["pump-1"]
    assert await site.targets() == await site.targets()


@pytest.mark.parametrize(("word", "said"), [("fails", "the inventory is away"), ("hangs", "did not answer")])
async def test_what_a_source_has_told_last_counts_while_it_fails_or_hangs(tmp_path: Path, word: str, said: str) -> None:
    (tmp_path / ".labwright").mkdir()
    settings = write_site(tmp_path, sources=counted())
    settings = settings.model_copy(update={"site": settings.site.model_copy(update={"decide_timeout": 0.2})})
    site = load_site(settings)
    assert list(await site.targets()) == ["pump-0"]
    assert site.target_warnings() == ()

    wrong = tmp_path / "mylab" / word
    wrong.touch()
    for later in (site, load_site(settings)):  # the second knows it from the lab's folder
        assert list(await later.targets()) == ["pump-0"]
        (warning,) = later.target_warnings()
        assert "targets as they were told at 20" in warning
        assert said in warning

    wrong.unlink()
    assert list(await site.targets()) != ["pump-0"]
    assert site.target_warnings() == ()


async def test_a_plain_source_that_hangs_is_not_called_a_second_time(tmp_path: Path) -> None:
    hang = 'import time; [time.sleep(0.01) for _ in range(6000) if (HERE / "hangs").exists()]'
    settings = write_site(tmp_path, sources=counted(kind="def", hang=hang))
    settings = settings.model_copy(update={"site": settings.site.model_copy(update={"decide_timeout": 0.2})})
    site = load_site(settings)
    await site.targets()
    hangs = tmp_path / "mylab" / "hangs"
    hangs.touch()
    try:
        for _ in range(3):
            assert list(await site.targets()) == ["pump-0"]
        assert (tmp_path / "mylab" / "count").read_text() == "2"
    finally:
        hangs.unlink()


async def test_a_name_that_stands_in_the_file_and_comes_from_a_source_is_told(tmp_path: Path) -> None:
    settings = write_site(tmp_path, sources=counted(every=300))
    (tmp_path / "targets.yaml").write_text("- {name: pump-0, labels: {crate: 7}}")
    site = load_site(load_settings(settings.folder, {}))

    assert {name: target.labels for name, target in (await site.targets()).items()} == {"pump-0": {"crate": "7"}}
    (warning,) = site.target_warnings()
    assert "two targets are named 'pump-0'" in warning
    assert "targets.yaml" in warning
    assert "mylab.sources:pumps" in warning


async def test_facts_that_take_too_long_are_a_transient_error(tmp_path: Path) -> None:
    text = """
        import asyncio
        from labwright.facts.source import fact_source

        @fact_source("*")
        async def slow(event):
            await asyncio.sleep(60)
    """
    site = load_site(write_site(tmp_path, "decide_timeout = 0.05", sources=text))

    with pytest.raises(TransientError):
        await decide_event(site, event(), NOW)


def test_an_unknown_task_names_the_nearest(tmp_path: Path) -> None:
    site = load_site(write_site(tmp_path, tasks=TASKS))

    with pytest.raises(NotFoundError) as refusal:
        find_task(site, "gret")

    assert refusal.value.cure == "did you mean 'greet'?"


async def test_the_builtin_job_says_that_it_does_nothing_yet(tmp_path: Path) -> None:
    from labwright.core.errors import NotApplicable

    task = load_site(load_settings(tmp_path, {})).tasks["ispyb-job"]

    assert task.validated({"recipe": "x", "dcid": 1}) == {"recipe": "x", "dcid": 1}
    with pytest.raises(NotApplicable, match="later version"):
        await task.steps[0](None)


def test_requests_of_rules_can_be_asked_for_in_tests_of_a_site(tmp_path: Path) -> None:
    site = load_site(write_site(tmp_path, rules=RULES))
    from labwright.decide.scenario import Scenario

    (reduce,) = site.rules

    assert list(reduce(Scenario.of(event(), {}))) == [Request("greet", name="nobody")]
