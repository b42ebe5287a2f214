"""Compare two documents of content, and format one as text with a readable diff."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
WIDTH = 120
ANSWER_TOLERANCE = 1e-2
"""Tolerance of an answer on another kind of CPU, relative above 1: models whose probabilities differ by less than a
hundredth are the same to their callers, however much rounding grew during the training."""
_COUNTED = re.compile(r"\.(decided|offsets)\.")
"""Integers that count answers, or the bytes of their text."""
_DIGEST = re.compile(r"\b[0-9a-f]{32}(?:[0-9a-f]{32})?\b")
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def path_of(product: str) -> Path:
    return FOLDER / f"{product}.json"


def differences(golden: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Return each difference between two documents, with its path and both values.

    Everything is compared exactly if the golden was recorded on the same kind of machine. Otherwise, within `learned`,
    names, text, integers and missing values are compared, without digests, and answers within a tolerance of those
    that the golden holds from one kind of machine (`answers_elsewhere` has the others). For numbers
    computed from answers no tolerance holds everywhere, because bins, ranks and p-values jump: they must be finite.
    """
    is_exact = golden["machine"] == current["machine"]
    data = _changed("data", golden["data"], current["data"], is_exact=True)
    candidates = [golden["learned"]] if is_exact else [golden["learned"], *_with_answers_of_other_machines(golden)]
    learned = [list(_changed("learned", candidate, current["learned"], is_exact=is_exact)) for candidate in candidates]
    return [*data, *min(learned, key=len)]


def with_answers_recorded_before(document: dict[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
    """Add to a golden the answers from other kinds of machines that the previous golden had.

    Training lets rounding grow: the answers of a convolutional network differ by .05 between two kinds of CPU.
    """
    if before is None:
        return document
    answers = [
        *before.get("answers_elsewhere", []),
        {"machine": before["machine"], "answers": before["learned"]["service"]["answers"]},
    ]
    elsewhere = [item for item in answers if item["machine"] != document["machine"]]
    return document | ({"answers_elsewhere": elsewhere} if elsewhere else {})


def _with_answers_of_other_machines(golden: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for item in golden.get("answers_elsewhere", []):
        learned = golden["learned"]
        yield learned | {"service": learned["service"] | {"answers": item["answers"]}}


def _changed(path: str, golden: Any, current: Any, *, is_exact: bool) -> Iterator[str]:
    if isinstance(golden, Mapping) and isinstance(current, Mapping):
        if not is_exact:
            golden, current = _without_digests(golden), _without_digests(current)
        for name in sorted({*golden, *current}):
            if name not in golden or name not in current:
                yield f"{path}.{name}: " + ("is new" if name in current else "is gone")
            else:
                yield from _changed(f"{path}.{name}", golden[name], current[name], is_exact=is_exact)
    elif isinstance(golden, list) and isinstance(current, list) and len(golden) == len(current):
        for index, pair in enumerate(zip(golden, current, strict=True)):
            yield from _changed(f"{path}[{index}]", *pair, is_exact=is_exact)
    elif golden != current and (is_exact or not _is_close(path, golden, current)):
        yield f"{path}: {golden!r} -> {current!r}"


def _is_close(path: str, golden: Any, current: Any) -> bool:
    if isinstance(golden, str) and isinstance(current, str):
        return _without_numbers(golden) == _without_numbers(current)
    if isinstance(golden, float) and isinstance(current, float):
        if ".service.answers." in path:
            return math.isclose(golden, current, rel_tol=ANSWER_TOLERANCE, abs_tol=ANSWER_TOLERANCE)
        return math.isfinite(current)
    return type(golden) is type(current) is int and _COUNTED.search(path) is not None


def _without_digests(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping whose digest names are replaced by numbers, in the order of their values."""
    named, remaining = [item for item in mapping if _DIGEST.fullmatch(item)], dict(mapping)
    ordered = sorted((remaining.pop(name) for name in named), key=lambda value: json.dumps(value, sort_keys=True))
    return remaining | {f"#{index}": value for index, value in enumerate(ordered)}


def _without_numbers(text: str) -> str:
    return _NUMBER.sub("#", _DIGEST.sub("#", text))


def as_text(value: Any, indent: str = "") -> str:
    """Format a value as JSON, putting on one line whatever fits."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not isinstance(value, dict | list) or len(indent) + len(line) <= WIDTH:
        return line
    deeper = indent + " "
    if isinstance(value, dict):
        parts = [f"{json.dumps(name, ensure_ascii=False)}: {as_text(item, deeper)}" for name, item in value.items()]
    else:
        parts = [as_text(item, deeper) for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return "\n".join([opening, ",\n".join(f"{deeper}{part}" for part in parts), f"{indent}{closing}"])
