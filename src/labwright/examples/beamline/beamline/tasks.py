"""How it is done: each task is a list of steps, or a function that does steps in any order."""

from beamline.steps.detector import arm_detector, flush_images, images_are_written
from beamline.steps.processing import find_spots, integrate, mark_crystal, score_row, write_results
from beamline.steps.storage import (
    copy_to_tape,
    disks_are_young,
    remove_old_collections,
    request_archiving,
    tape_is_mounted,
    unmount_tape,
)
from labwright import NotApplicable, Retry, Task, TaskContext, task, wait_for

reduce = Task(
    "reduce",
    steps=[
        flush_images,
        wait_for(images_are_written, every=0.2, timeout=60),
        find_spots,
        integrate,
        write_results,
        request_archiving,
    ],
    timeout=600,
    doc="Reduce the data of one rotation, and have the results archived.",
)

archive = Task(
    "archive",
    steps=[tape_is_mounted, copy_to_tape, unmount_tape],
    retry=Retry(attempts=10, first=0.5),
    locks=["tape-drive"],
    doc="Copy results to the tape of their visit; there is one drive, so one at a time.",
)

arm = Task("arm-detector", steps=[arm_detector], timeout=30, doc="Make the detector ready for a data collection.")

make_room = Task(
    "make-room", steps=[remove_old_collections, disks_are_young], timeout=300, doc="Keep a processing host fit."
)


@task(timeout=120)
async def find_crystal(ctx: TaskContext, dcid: int, images: int, rows: int) -> dict[str, int]:
    """Find the row of a grid with the most spots.

    After a crash, and after the sleep, this function runs again from its top; what its steps gave comes back from the
    record. So it only decides, and leaves everything that acts or looks at the world to its steps.
    """
    if rows < 1:
        raise NotApplicable(f"the grid of {dcid} has no rows")
    await ctx.do(flush_images, dcid=dcid, images=images)
    await ctx.sleep(0.4)  # the writer needs so long; the run waits without a worker, and no crash matters
    width = images // rows
    scores: list[int] = [
        await ctx.do(score_row, dcid=dcid, first=row * width + 1, last=(row + 1) * width) for row in range(rows)
    ]
    best = max(scores)
    return await ctx.do(mark_crystal, dcid=dcid, row=scores.index(best) + 1, score=best)
