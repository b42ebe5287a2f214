"""What a Dagster instance's database says of runs, ticks, daemons, pools and events. Rights to read are enough."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

if TYPE_CHECKING:
    import dagster as dg

OPEN = ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")
ENDED = ("SUCCESS", "FAILURE", "CANCELED")
TICKS = ("SUCCESS", "SKIPPED", "FAILURE")
DURATIONS_S = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0)
PAGE = 500
MOST_OPEN = 10_000
OVERLAP = timedelta(minutes=2)
"""Ended runs and ticks are read again so far back: the database may show one later than another that ended after it."""
MOST_JOBS = 500
OTHER = "other"
"""Label of the jobs beyond that number."""

JOB = ("location", "job_name")
"""Not `job`, `instance` or `namespace`: Prometheus gives these to what it scrapes, and renames ours."""
INSTIGATOR = ("location", "name", "kind")
DAEMON = ("daemon",)
Job = tuple[str, str]
"""Code location (empty where unknown) and name."""
Instigator = tuple[str, str, str]
"""Code location, name, and `sensor` or `schedule`."""


class _News:
    """What is new among things that are read again and again, as far back as `OVERLAP`."""

    def __init__(self, began: datetime) -> None:
        self._began = began
        self._counted: dict[Hashable, datetime] = {}

    @property
    def since(self) -> datetime:
        """From when on to read."""
        return max(self._counted.values(), default=self._began) - OVERLAP

    def is_new(self, name: Hashable, at: datetime) -> bool:
        """Note a thing, and tell whether it is new: not noted before, and of after the beginning."""
        is_new = name not in self._counted and at > self._began
        self._counted[name] = at
        return is_new

    def forget(self) -> None:
        """Forget what will not be read again."""
        since = self.since
        self._counted = {name: at for name, at in self._counted.items() if at >= since}


class OfInstance:
    """The numbers of an instance. Counters are of what ended since this was made."""

    def __init__(self, open_instance: Callable[[], dg.DagsterInstance]) -> None:
        """Prepare without reading.

        Args:
            open_instance: opens the instance, again after a reading that failed.
        """
        self._open = open_instance
        self._instance: dg.DagsterInstance | None = None
        now = datetime.now(UTC)
        self._new_runs, self._new_ticks = _News(now), _News(now)
        self._has_begun = False
        self._jobs: set[Job] = set()
        self._runs: Counter[tuple[Job, str]] = Counter()
        self._later: list[dg.RunRecord] = []
        self._durations: dict[Job, tuple[list[int], float]] = {}
        self._ticks: Counter[tuple[Instigator, str]] = Counter()
        self._instigators: set[Instigator] = set()

    def __call__(self) -> list[Metric]:
        """Read the database: some ten queries, and one per sensor and schedule."""
        try:
            instance = self._instance = self._instance or self._open()
            stored = _counter("dagster_events_stored", "Events that were ever stored, by the number of the newest.")
            stored.add_metric([], instance.event_log_storage.get_maximum_record_id() or 0)
            return [
                *self._of_runs(instance),
                *self._of_instigators(instance),
                *_of_daemons(instance),
                *_of_pools(instance),
                stored,
            ]
        except Exception:
            self._instance = None
            raise

    def _of_runs(self, instance: dg.DagsterInstance) -> list[Metric]:
        import dagster as dg

        states = [dg.DagsterRunStatus(name) for name in OPEN]
        opened = instance.get_run_records(dg.RunsFilter(statuses=states), limit=MOST_OPEN)
        if not self._has_begun:  # so that their counters begin at zero
            self._has_begun = True
            self._jobs |= {_job(record) for record in instance.get_run_records(limit=PAGE)}
        # A job that was not known shows zero first, and its run one reading later: Prometheus sees no increase in the
        # first value of a series.
        ended_now, self._later = [*self._later, *self._ended(instance)], []
        known = frozenset(self._jobs)
        for record in ended_now:
            if _job(record) not in known:
                self._jobs.add(_job(record))
                self._later.append(record)
                continue
            job = self._label(_job(record))
            self._runs[job, record.dagster_run.status.value] += 1
            if record.start_time and record.end_time:
                seconds = record.end_time - record.start_time
                counts, total = self._durations.get(job, ([0] * (len(DURATIONS_S) + 1), 0.0))
                counts[bisect_left(DURATIONS_S, seconds)] += 1
                self._durations[job] = (counts, total + seconds)
        self._jobs |= {_job(record) for record in opened}
        count = Counter((self._label(_job(record)), record.dagster_run.status.value) for record in opened)
        runs = _gauge("dagster_runs", "Runs that have not ended, by state.", *JOB, "state")
        begun = "When the oldest run of a state was created, 0 for none."
        oldest = _gauge("dagster_oldest_run_created_timestamp_seconds", begun, "state")
        ended = _counter("dagster_runs_ended", "Runs that ended, by state.", *JOB, "state")
        took = HistogramMetricFamily("dagster_run_duration_seconds", "From start to end of a run.", labels=JOB)
        for job in sorted({self._label(job) for job in self._jobs}):
            for state in OPEN:
                runs.add_metric([*job, state.lower()], count[job, state])
            for state in ENDED:
                ended.add_metric([*job, state.lower()], self._runs[job, state])
            counts, total = self._durations.get(job, ([0] * (len(DURATIONS_S) + 1), 0.0))
            bounds = [*(f"{bound}" for bound in DURATIONS_S), "+Inf"]
            took.add_metric(job, [*zip(bounds, accumulate(counts), strict=True)], total)
        for state in OPEN:
            moments = [record.create_timestamp for record in opened if record.dagster_run.status.value == state]
            oldest.add_metric([state.lower()], min(map(datetime.timestamp, moments), default=0.0))
        return [runs, oldest, ended, took]

    def _ended(self, instance: dg.DagsterInstance) -> Iterator[dg.RunRecord]:
        """Yield the runs that ended since the last reading."""
        import dagster as dg

        states, since = [dg.DagsterRunStatus(name) for name in ENDED], self._new_runs.since
        while True:
            wanted = dg.RunsFilter(statuses=states, updated_after=since)
            page = instance.get_run_records(wanted, limit=PAGE, order_by="update_timestamp", ascending=True)
            for record in page:
                if self._new_runs.is_new(record.dagster_run.run_id, record.update_timestamp):
                    yield record
            if len(page) < PAGE or page[-1].update_timestamp <= since:
                break
            since = page[-1].update_timestamp
        self._new_runs.forget()

    def _label(self, job: Job) -> Job:
        """Return a job as labels: one series for those beyond `MOST_JOBS`."""
        is_kept = len(self._jobs) <= MOST_JOBS or job in sorted(self._jobs)[:MOST_JOBS]
        return job if is_kept else ("", OTHER)

    def _of_instigators(self, instance: dg.DagsterInstance) -> list[Metric]:
        running = _gauge("dagster_instigator_running", "1 for a sensor or schedule that is on.", *INSTIGATOR)
        last = _gauge("dagster_tick_timestamp_seconds", "When the last tick began, 0 for none.", *INSTIGATOR)
        every = _gauge(
            "dagster_sensor_interval_seconds", "The least seconds between two ticks of a sensor.", *INSTIGATOR
        )
        ticks = _counter("dagster_ticks", "Ticks that ended, by outcome.", *INSTIGATOR, "outcome")
        since = self._new_ticks.since.timestamp()
        for state in instance.all_instigator_state():
            place = state.origin.repository_origin.code_location_origin.location_name
            labels = (place, state.instigator_name, state.instigator_type.value.lower())
            origin, selector = state.instigator_origin_id, state.selector_id
            summaries = instance.get_tick_summaries(origin, selector, after=since, limit=PAGE)
            is_known = labels in self._instigators  # as with jobs
            self._instigators.add(labels)
            for tick in summaries if is_known else ():
                outcome = tick.status.value
                at = datetime.fromtimestamp(tick.timestamp, UTC)
                if outcome in TICKS and self._new_ticks.is_new(tick.tick_id, at):
                    self._ticks[labels, outcome] += 1
            newest = summaries or instance.get_tick_summaries(origin, selector, limit=1)
            running.add_metric(labels, float(state.status.value != "STOPPED"))
            last.add_metric(labels, max((tick.timestamp for tick in newest), default=0.0))
            if (interval := getattr(state.instigator_data, "min_interval", None)) is not None:
                every.add_metric(labels, interval)
            for outcome in TICKS:
                ticks.add_metric([*labels, outcome.lower()], self._ticks[labels, outcome])
        self._new_ticks.forget()
        return [running, last, every, ticks]


def _of_daemons(instance: dg.DagsterInstance) -> list[Metric]:
    beats, required = instance.get_daemon_heartbeats(), {*instance.get_required_daemon_types()}
    beat = _gauge(
        "dagster_daemon_heartbeat_timestamp_seconds", "When a daemon's last heartbeat was, 0 for none.", *DAEMON
    )
    errors = _gauge("dagster_daemon_errors", "Errors that a daemon's last heartbeat names.", *DAEMON)
    needed = _gauge("dagster_daemon_required", "1 for a daemon that this instance needs.", *DAEMON)
    for name in sorted({*beats, *required}):
        known = beats.get(name)
        beat.add_metric([name.lower()], known.timestamp if known else 0.0)
        errors.add_metric([name.lower()], len(known.errors or ()) if known else 0)
        needed.add_metric([name.lower()], float(name in required))
    return [beat, errors, needed]


def _of_pools(instance: dg.DagsterInstance) -> list[Metric]:
    storage = instance.event_log_storage
    slots = _gauge("dagster_pool_slots", "Slots of a pool.", "pool")
    used = _gauge("dagster_pool_used_slots", "Slots of a pool that are taken.", "pool")
    waiting = _gauge("dagster_pool_waiting_steps", "Steps that wait for a slot of a pool.", "pool")
    if storage.supports_global_concurrency_limits:
        for pool in sorted(storage.get_concurrency_keys()):
            known = storage.get_concurrency_info(pool)
            slots.add_metric([pool], known.slot_count)
            used.add_metric([pool], known.active_slot_count)
            waiting.add_metric([pool], known.pending_step_count)
    return [slots, used, waiting]


def _job(record: dg.RunRecord) -> Job:
    run = record.dagster_run
    origin = run.remote_job_origin
    return ("" if origin is None else origin.location_name, run.job_name)


def _gauge(name: str, about: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, labels=labels)


def _counter(name: str, about: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, about, labels=labels)
