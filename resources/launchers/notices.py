"""Warn before a training starts if its saves take longer than a stopped step is given."""

from __future__ import annotations

import dagster as dg

from platform_assets.profiles import StepProfile
from platform_assets.records.attempts import EXPORT
from platform_assets.settings import Settings
from resources.launchers import records
from resources.launchers.endings import Work


def report_save_time(log: dg.DagsterLogManager, settings: Settings, work: Work, size: StepProfile) -> None:
    """Warn when an earlier attempt's save took longer than the profile leaves; where none was measured, say so."""
    if work.step == EXPORT:
        return  # it makes no saves
    longest_s = records.longest_save_s(settings, work)
    if longest_s is None and size.is_spot:
        log.info(
            f"no save of step {work.step} has been measured yet; profile {size.name} leaves {size.save_s:g} s for one "
            "when the step is stopped. The first save says how long it takes."
        )
    elif longest_s is not None and longest_s > size.save_s:
        log.warning(
            f"a save of step {work.step} has taken {longest_s:.1f} s, and profile {size.name} leaves {size.save_s:g} s "
            "for one when the step is stopped: the work since the save before will be lost. Use nodes with a longer "
            f"notice, or on demand{'' if size.save_s < size.grace_s else ', or raise the grace_s of the profile'}."
        )
