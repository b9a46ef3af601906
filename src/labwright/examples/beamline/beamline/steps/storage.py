"""Steps that keep files: on tape for ever, on the hosts for a while."""

from pathlib import Path
from typing import Any

from labwright import Finding, NotApplicable, Request, TaskContext, TransientError, output_of, step

YEARS = 8
"""How old disks may become."""


@step
async def request_archiving(
    ctx: TaskContext, dcid: int, visit: str, written: dict[str, Any] = output_of("write_results")
) -> str:
    """Have the results archived by a run of its own: a child, made once however often this step runs."""
    return await ctx.spawn(Request("archive", dcid=dcid, visit=visit, file=written["file"], priority=-1))


@step
async def tape_is_mounted(ctx: TaskContext, visit: str) -> None:
    """Ask for the tape, and fail softly while the robot fetches it: the worker does something else meanwhile."""
    tape = await ctx.client("tape")
    tape.mount(visit)
    if not tape.is_mounted(visit):
        raise TransientError(f"the tape of {visit} is not mounted yet", retry_after=0.5)


@step
async def copy_to_tape(ctx: TaskContext, dcid: int, visit: str, file: str) -> str:
    """Copy the results; a copy that was begun before is replaced."""
    tape = await ctx.client("tape")
    copy = str(tape.write(visit, dcid, Path(file)))
    ctx.set_result({"tape": copy})
    return copy


@step
async def unmount_tape(ctx: TaskContext, visit: str) -> None:
    """Give the tape back."""
    tape = await ctx.client("tape")
    tape.unmount(visit)


@step
async def remove_old_collections(ctx: TaskContext) -> list[int]:
    """Remove all but the newest results of this host; with nothing to remove, the step is skipped."""
    storage = await ctx.client("storage")
    old = storage.collections()[: -ctx.target.keep_collections]
    if not old:
        raise NotApplicable(f"{ctx.target.name} keeps its {ctx.target.keep_collections} newest, and has no older ones")
    for dcid in old:
        storage.remove(dcid)
    return old


@step
async def disks_are_young(ctx: TaskContext) -> None:
    """Look at the age of the disks; what is due is a finding, a success that somebody should see."""
    age = ctx.now().year - ctx.target.disks_since
    if age > YEARS:
        raise Finding(f"the disks of {ctx.target.name} are {age} years old: replace them")
