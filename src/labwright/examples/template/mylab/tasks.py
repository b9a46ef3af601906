"""How it is done: tasks, and the steps that they are made of."""

from statistics import fmean

from labwright import Task, TaskContext, TransientError, output_of, step

SPREAD_MG = 1.0


@step
async def readings_agree(ctx: TaskContext, readings_mg: list[float]) -> float:
    """Average the readings; while the balance is still swinging, fail softly: the run is tried again."""
    if max(readings_mg) - min(readings_mg) > SPREAD_MG:
        raise TransientError(f"{ctx.target.name} has not settled", retry_after=5)
    return round(fmean(readings_mg), 3)


@step
async def subtract_zero(ctx: TaskContext, sample: str, mean_mg: float = output_of("readings_agree")) -> float:
    """Take off what the balance shows when it is empty, one of the facts in targets.yaml."""
    mass = round(mean_mg - ctx.target.zero_mg, 3)
    ctx.log.info("weighed", sample=sample, mass_mg=mass)
    return mass


weigh = Task("weigh", steps=[readings_agree, subtract_zero], timeout=60, doc="Weigh one sample.")
