"""Write the log of a process as JSON, one line per record, where `DRIFTLINE_LOG_FORMAT` says so; text is the default.

Each line has `time` (UTC), `level`, `logger` and `message`, `exception` with its traceback where there is one, and
those of `FIELDS` that are known: of the process, of the record (its `extra`), or of the run for which Dagster writes
it. Nothing else of a record is written: what libraries attach to theirs stays out of the log.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from platform_assets.base import naming
from platform_assets.base.settings import log_format

FIELDS = ("product", "key", "run_id", "job", "step", "release", "model", "request_id")
"""What a line is about. `model` is a bundle's digest, or its beginning; `request_id` the caller's `X-Request-ID`."""
PARTITION, RANGE = "dagster/partition", ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
STDERR = 2
OF_STEP = '"logger":"dagster-pipes"'
"""In each line of a step that Pipes tells its run too."""

_known: dict[str, str] = {}
_encode = msgspec.json.Encoder().encode


def install() -> bool:
    """Write every record of this process as JSON from now on, if the setting says so; return whether it does.

    Raises:
        SettingsProblem: the setting is neither `text` nor `json`.
    """
    if log_format() == "text":
        return False
    # Dagster, uvicorn and Bento give handlers of their own formatters of their own, Dagster anew for each run.
    logging.StreamHandler.format = _format  # type: ignore[method-assign, assignment]
    return True


def know(**fields: str | None) -> None:
    """Add fields to every line that follows; empty ones are left out."""
    _known.update({name: value for name, value in fields.items() if value})


def as_json(record: logging.LogRecord) -> str:
    """Return a record as one line of JSON, without a line end."""
    meta: Mapping[str, Any] = getattr(record, "dagster_meta", None) or {}
    # Of the picked assets or the job that a run executes, as Dagster describes a record of it.
    tags: Mapping[str, str] = meta.get("job_tags") or {}
    job, step = meta.get("job_name") or "", meta.get("step_key") or ""
    verb, _, of_job = job.partition("__")  # without a verb it is Dagster's job for picked assets
    of_run = {
        "product": tags.get(naming.TAG_PRODUCT) or (of_job if verb else step.partition("__")[0]),
        "key": "...".join(dict.fromkeys(tags[name] for name in (PARTITION, *RANGE) if name in tags)),
        "run_id": meta.get("run_id"),
        "job": job,
        "step": step,
    }
    line = {
        **_head(datetime.fromtimestamp(record.created, UTC), record.levelname.lower(), record.name),
        # Without job, run and step, which Dagster puts in front of its messages and which are fields here.
        "message": meta.get("orig_message") or record.getMessage(),
        **_known,
        **{name: value for name, value in of_run.items() if value},
        **{name: value for name in FIELDS if (value := getattr(record, name, None)) is not None},
    }
    if record.exc_info:
        exception = logging.Formatter().formatException(record.exc_info)
    else:  # the error of the event of a run that the record tells of
        error = getattr(getattr(meta.get("dagster_event"), "event_specific_data", None), "error", None)
        exception = record.exc_text or ("" if error is None else str(error.to_string()))
    if exception:
        line["exception"] = exception
    return _encode(line).decode()


def write(logger: str, message: str, fields: Mapping[str, str | float | None]) -> None:
    """Write a line at level info by one system call: for what is written per answer, where `logging` costs too much."""
    os.write(STDERR, _encode({**_head(datetime.now(UTC), "info", logger), "message": message, **fields}) + b"\n")


def _format(_handler: logging.Handler, record: logging.LogRecord) -> str:
    return as_json(record)


def _head(time: datetime, level: str, logger: str) -> dict[str, datetime | str]:
    return {"time": time, "level": level, "logger": logger}
