"""Every command and option of this part exists, and each command's help teaches."""

from __future__ import annotations

import pytest

from labwright.cli.main import app, main
from tests.cli.conftest import Terminal

SURFACE = {
    "demo": ["--once", "--site-dir"],
    "new site": [],
    "check": [],
    "doctor": [],
    "serve": ["--stop", "--listen", "--tls-cert", "--tls-key", "--tls-ca"],
    "user add": ["--role", "--out", "--url", "--tls-ca"],
    "user list": ["--nats-conf"],
    "user revoke": [],
    "audit": ["--since", "--limit"],
    "claim": ["--on", "--for", "--reason"],
    "schedules list": [],
    "schedules show": ["--limit"],
    "schedules add": [
        "--task",
        "--param",
        "--on",
        "--every",
        "--cron",
        "--calendar",
        "--at",
        "--zone",
        "--window",
        "--cutoff",
        "--spread",
        "--waves",
        "--failure-budget",
        "--overlap",
        "--late",
        "--pause",
        "--error",
    ],
    "schedules preview": ["--count", "--zone"],
    "schedules pause": [],
    "schedules resume": [],
    "schedules fire": [],
    "schedules skip": ["--count"],
    "schedules remove": [],
    "claims list": [],
    "claims release": ["--reason"],
    "worker": ["--pool"],
    "host": ["--ocs", "--host", "--name"],
    "reload": [],
    "rebuild-view": [],
    "facts show": [],
    "plan": ["--dcid", "--commands"],
    "emit": ["--wait", "--timeout"],
    "run": [
        "-p",
        "--on",
        "--wait",
        "--timeout",
        "--priority",
        "--not-before",
        "--not-after",
        "--key",
        "--approve",
        "--dry-run",
    ],
    "runs list": ["--state", "--task", "--on", "--since", "--cause", "--limit", "--cursor"],
    "runs show": ["--full"],
    "runs why": [],
    "runs log": ["--follow"],
    "runs watch": ["--state", "--task", "--on", "--since", "--cause"],
    "runs abort": ["--state", "--task", "--on", "--since", "--cause"],
    "runs approve": ["--state", "--task", "--on", "--since", "--cause", "--reason"],
    "runs retry": ["--state", "--task", "--on", "--since", "--cause", "--from-start"],
    "events list": ["--limit", "--cursor", "--state"],
    "events show": [],
    "events decide": ["--dry-run"],
    "decisions list": ["--limit", "--cursor"],
    "decisions show": [],
    "tasks list": [],
    "tasks show": [],
    "rules list": [],
    "rules show": [],
    "targets list": ["--on"],
    "targets show": [],
    "pools list": [],
    "pools show": [],
    "pools pause": [],
    "pools resume": [],
    "pools drain": [],
    "abort": ["--on", "--operation"],
    "agent start": ["--name", "--label", "--arg", "--state", "--creds"],
    "agents list": ["--on", "--all"],
    "agents show": [],
    "agents history": ["--since", "--limit", "--cursor"],
    "call": ["--on", "-p", "--no-wait", "--timeout", "--key"],
    "sessions list": ["--state", "--agent", "--operation", "--run", "--since", "--limit", "--cursor"],
    "sessions show": [],
    "sessions log": ["--follow"],
    "sessions stop": [],
    "sessions abort": [],
    "feeds list": ["--agent"],
    "feeds watch": ["--agent"],
    "files list": ["--agent", "--session", "--action", "--kind", "--since", "--limit", "--cursor"],
}


@pytest.mark.parametrize("command", SURFACE)
def test_a_command_has_its_options_and_teaches_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    for option in [*SURFACE[command], "--site", "--json", "--help"]:
        assert f"{option} " in text, f"{command} has no {option}"
    assert f"labwright {command}" in text.partition("Example")[2], "an example shows how it is called"


def test_there_is_no_command_that_the_surface_does_not_name() -> None:
    named = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    groups = {group.name: group.typer_instance for group in app.registered_groups}
    found = set(named) | {
        f"{name} {command.name}" for name, group in groups.items() if group for command in group.registered_commands
    }
    assert found == set(SURFACE)


def test_the_version_is_told(site: Terminal) -> None:
    assert site("--version").out.startswith("labwright ")


def test_an_unknown_command_names_the_nearest(site: Terminal) -> None:
    done = site("rums", code=2)
    assert "'runs'" in done.err
    assert done.out == ""


def test_an_unknown_option_and_a_missing_argument_are_usage_errors(site: Terminal) -> None:
    assert site("runs", "list", "--stat", "failed", "--json", code=2).error["kind"] == "usage"
    assert site("run", "--json", code=2).error["try"] == "labwright run --help"
    assert "list" in site("runs", code=2).out


def test_site_and_json_are_understood_before_and_after_the_command(site: Terminal) -> None:
    elsewhere = Terminal(site.folder.parent)
    before = elsewhere("--json", "--site", site.folder, "check")
    after = elsewhere("check", "--site", site.folder, "--json")
    assert before.json == after.json
    assert before.json["ok"] is True


def test_a_site_folder_that_does_not_exist_is_refused(site: Terminal) -> None:
    assert site("check", "--site", "nowhere", "--json", code=2).error["message"].startswith("the site folder")


def test_a_broken_pipe_is_quiet(site: Terminal) -> None:
    import subprocess

    from tests.cli.conftest import command, environment

    line = f"{' '.join(command('tasks', 'list', '--json'))} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=site.folder, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() in {"0", "141"}
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
