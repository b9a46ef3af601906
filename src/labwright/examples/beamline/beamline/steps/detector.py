"""Steps that talk to the detector."""

from labwright import TaskContext, step


@step(repeat=False)
async def arm_detector(ctx: TaskContext, dcid: int, images: int) -> None:
    """Arm the detector. To arm twice throws away what came between, so after a crash a person must look first."""
    detector = await ctx.client("detector")
    detector.arm(dcid, images)
    ctx.log.info("armed", dcid=dcid, images=images, seconds=images / ctx.target.frames_per_second)


@step
async def flush_images(ctx: TaskContext, dcid: int, images: int) -> None:
    """Have the detector write what it still holds."""
    detector = await ctx.client("detector")
    detector.flush(dcid, images)


async def images_are_written(ctx: TaskContext, dcid: int) -> bool:
    """Tell whether all images are on the disk; a condition for `wait_for`."""
    detector = await ctx.client("detector")
    return detector.is_written(dcid)
