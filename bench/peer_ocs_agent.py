"""The peer's agent: one task that does nothing. Started by peer_ocs.py."""

from typing import Any

from ocs import ocs_agent, site_config


def nothing(session: Any, params: Any) -> tuple[bool, str]:  # noqa: ARG001 - OCS calls it so
    """Do nothing."""
    return True, "done"


args = site_config.parse_args(agent_class="Bench")
agent, runner = ocs_agent.init_site_agent(args)
agent.register_task("nothing", nothing)
runner.run(agent, auto_reconnect=True)
