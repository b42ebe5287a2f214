"""Collect the content stored by a walk in one document: digests, and the numbers and sentences of judgements.

Content is what code, data and seed determine. Clock times, durations, memory, paths and the bytes of landed files are
not content. `data` is equal everywhere; `learned` follows from trained weights, whose bytes differ between kinds of
CPU and versions of libraries.
"""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.serving.answer import openapi
from platform_assets.serving.answer.contract import Contract
from platform_assets.store.artifacts import ArtifactStore, canonical, sha256
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.tables import PartitionRecord, TableStore
from tests.goldens.walk import ServedKey, Walk

NOT_CONTENT = {
    *("uri", "arrived_at_utc", "sha256", "bytes", "mark"),
    *("cpu_s", "peak_memory_mb", "used", "measured"),
    *("is_reused", "resumed_from_step"),
}
LIBRARIES = ("numpy", "onnx", "onnxruntime", "onnxscript", "polars", "torch")
ANSWERS_SHOWN = 3


def machine() -> dict[str, Any]:
    """Return the facts on which a trained model's bytes depend, besides code, data and seed."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    simd = np.show_config(mode="dicts")["SIMD Extensions"]  # type: ignore[index]  # typed as Optional
    return {
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "simd": simd["found"],
        "vendor": next((line.split(":")[1].strip() for line in lines if line.startswith("vendor_id")), None),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def gathered(scenario: Walk, settings: Settings, served: Mapping[str, ServedKey]) -> dict[str, Any]:
    """Return the document of a walk."""
    spec, tables = scenario.spec, TableStore(settings.root, scenario.spec.name)
    ledgers, artifacts = Ledgers(settings.root, spec.name), ArtifactStore(settings.root)
    of_sources = [
        naming.stage(stage, item.name) for item in spec.sources for stage in ("raw", "validated", "quarantine")
    ]
    keys = spec.grain.span(scenario.before.first, scenario.after[-1].last)
    bundles = {cutoff: artifacts.bundle(record.content_digest) for cutoff, record in tables.records("onnx").items()}
    contract = Contract.from_bytes(bundles[scenario.cutoffs[0]].read("contract.json"))
    return {
        "machine": machine(),
        "data": {
            **{stage: _stage(tables, stage) for stage in (*of_sources, "features", "outcomes")},
            "contract": sha256(bundles[scenario.cutoffs[0]].read("contract.json")),
            "openapi": sha256(canonical(openapi.openapi(contract))),
        },
        "learned": {
            "checkpoint": _stage(tables, "checkpoint"),
            "onnx": {
                cutoff: {
                    "digest": bundle.digest,
                    "blobs": {name: blob["sha256"] for name, blob in bundle.manifest["blobs"].items()},
                }
                for cutoff, bundle in bundles.items()
            },
            "evaluation": {cutoff: ledgers.read(naming.VERDICTS, item.digest) for cutoff, item in bundles.items()},
            "release": {f"{number}": record for number, record in ledgers.records(naming.RELEASES)},
            "service": {
                "answers": {
                    key: {
                        "answered": len(answer.answers),
                        "refused": answer.refusals,
                        "first": answer.answers[:ANSWERS_SHOWN],
                    }
                    for key, answer in served.items()
                },
            },
            **{stage: _stage(tables, stage) for stage in ("predictions", "performance", "drift")},
            "decision": {key: _content(ledgers.read(naming.DECISIONS, key)) for key in keys},
            "faults": {
                key: records for key in keys if (records := [_content(x) for _, x in ledgers.records(f"faults/{key}")])
            },
            "ingested": {f"{number}": record for number, record in ledgers.records(naming.INGESTED)},
        },
    }


def _stage(tables: TableStore, stage: str) -> dict[str, Any]:
    return {key: _record(record) for key, record in tables.records(stage).items()}


def _record(record: PartitionRecord) -> dict[str, Any]:
    notes = _content(record.notes)
    return {"digest": record.content_digest, "rows": record.rows} | ({"notes": notes} if notes else {})


def _content(value: Any) -> Any:
    """Remove everything that depends on a clock or a machine, at any depth."""
    if isinstance(value, Mapping):
        return {name: _content(item) for name, item in value.items() if name not in NOT_CONTENT}
    return [_content(item) for item in value] if isinstance(value, list | tuple) else value
