"""The schedules of the site's package in the journal: added, changed and removed as the package has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from labwright.core.logs import get_logger
from labwright.journal.journal import Journal
from labwright.journal.records import ScheduleDefined, ScheduleRemoved
from labwright.journal.schedule_fold import ScheduleEntry, schedule_subject
from labwright.plan.durable import ScheduleState
from labwright.run.folding import Folding
from labwright.run.site_description import ScheduleDescription

SITE = "site"

log = get_logger(__name__)


async def write_site_schedules(journal: Journal, folding: Folding, wanted: Sequence[ScheduleDescription]) -> None:
    """Write what has changed; what is the same goes on as it was.

    Raises:
        MovedError: somebody has written about one of them meanwhile.
    """
    known = folding.present.schedules
    for name, record in list(site_changes(known, wanted)):
        seq = await journal.append(schedule_subject(name), record, after=known[name].seq if name in known else 0)
        await folding.folded(seq)


def site_changes(
    known: Mapping[str, ScheduleEntry], wanted: Sequence[ScheduleDescription]
) -> Iterator[tuple[str, ScheduleDefined | ScheduleRemoved]]:
    """Give what has to be written so that the journal has the site's schedules as they are. Pure.

    One that somebody has added under a name that the site uses too stays as it is.
    """
    for each in wanted:
        entry = known.get(each.name)
        former = None if entry is None or entry.schedule.state is ScheduleState.REMOVED else entry.schedule
        if former is not None and former.origin != SITE:
            log.warning("somebody has added a schedule under a name of the site's", schedule=each.name, by=former.by)
        elif former is None or former.definition != each.definition:
            yield each.name, ScheduleDefined(definition=each.definition, origin=SITE, by=SITE)
    names = {each.name for each in wanted}
    for name, entry in known.items():
        schedule = entry.schedule
        if schedule.origin == SITE and schedule.state is not ScheduleState.REMOVED and name not in names:
            yield name, ScheduleRemoved(by=SITE)
