"""Train the model of one cutoff, in a step outside of this process, and keep its weights under their digest.

The step sees the labelled keys before the cutoff, less the holdout and less keys that are held or dropped, or whose
labels were given up by then. It reads its rows by content digest, so the manifest names exactly what was learned. It
also trains the cheap baselines. A killed step resumes and ends with the same bytes; the same code, data, configuration
and library versions are never trained twice.

A training that would exceed the product's monthly budget is not launched, whoever asks; a person may give a reason in
the config of this asset (`over_budget_reason`), which is recorded.
"""

# Annotations are not postponed in stages: Dagster compares that of `context` as an object.

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

import dagster as dg

from platform_assets import digests, naming, partitions
from platform_assets.engine import fields
from platform_assets.facts import budget
from platform_assets.makers.checkpoint import Learning
from platform_assets.profiles import profile
from platform_assets.show import plots, use_plots, values
from platform_assets.specs.base import ProductSpec
from platform_assets.steps import instructions, use
from platform_assets.storage import adoption
from platform_assets.storage.artifacts import ArtifactProblem, canonical
from platform_assets.storage.tables import PartitionRecord, TableStore
from platform_assets.training import requests
from resources.launchers import StepLauncher, Work
from resources.store import StoreResource

STAGE = "checkpoint"
STEP = "platform_assets.steps.train"


class CheckpointConfig(dg.Config):
    """What a person may say; leave it empty otherwise.

    Attributes:
        over_budget_reason: why this training may exceed the month's budget.
    """

    over_budget_reason: str = ""


def build(spec: ProductSpec) -> list[dg.AssetsDefinition]:
    """Return the product's checkpoint asset."""
    maker = Learning.of(spec)
    code = digests.of(maker)
    seen = partitions.window_mapping(spec.grain, width=spec.window, label_delay=spec.label_delay)

    @dg.asset(
        **fields.asset_args(
            spec,
            STAGE,
            system=naming.TRAINING,
            kinds=("torch", "safetensors"),
            doc=__doc__,
            code=code,
            deps=[fields.dep(spec, "features", mapping=seen), fields.dep(spec, "outcomes", mapping=seen)],
        ),
        **fields.by_cutoff(spec),
        pool=naming.pool(spec.training.profile),
    )
    def checkpoint(
        context: dg.AssetExecutionContext,
        store: StoreResource,
        launcher: dg.ResourceParam[StepLauncher],
        config: CheckpointConfig,
    ) -> dg.MaterializeResult:
        cutoff = context.partition_key
        tables = store.tables(spec.name)
        out = requests.left_out(spec, tables, store.history(spec.name), cutoff)
        request = requests.training_request(spec, tables, cutoff, out)
        versions = launcher.libraries()
        request["fingerprint"] = requests.fingerprint(spec, code, request, versions)
        inputs = {"fingerprint": request["fingerprint"]}
        known = tables.records(STAGE, [cutoff]).get(cutoff)
        if known is not None and _stands(spec, store, tables, known, request, code):
            if store.artifacts.is_whole(known.content_digest, naming.CHECKPOINT_BLOBS):
                context.log.info(f"checkpoint of {cutoff} stands already: same code, data and configuration.")
                return _result(known.notes, known.content_digest, is_memoised=True)
            context.log.warning(f"checkpoint of {cutoff} cannot be read whole; it is trained again, to the same bytes.")
        over = budget.allow(
            spec,
            store,
            cutoff=cutoff,
            fingerprint=request["fingerprint"],
            reason=config.over_budget_reason,
            run_id=context.run.run_id,
        )
        if over is not None:
            context.log.warning(f"in {over.month} {over.over} Trained all the same: {over.why}")
        context.log.info(_beginning(spec, request, out))
        notes = launcher.run(
            context=context,
            module=STEP,
            extras={**request, **instructions.of_maker(maker), "libraries": versions},
            profile=profile(spec.training.profile),
            work=Work(product=spec.name, step="train", cutoff=cutoff, fingerprint=request["fingerprint"]),
        )
        notes |= {} if over is None else {"over_budget": over.document()}
        digest = notes["checkpoint"]
        tables.record(STAGE, cutoff, content_digest=digest, inputs=inputs, code=code, notes=notes)
        return _result(notes, digest, is_memoised=False)

    return [checkpoint]


def _beginning(spec: ProductSpec, request: Mapping[str, Any], out: Collection[str]) -> str:
    return (
        f"training {spec.name} for cutoff {request['cutoff']} on {len(request['training_keys'])} keys; "
        f"{len(request['holdout_keys'])} are the holdout; left out for faults or missing labels: "
        f"{', '.join(out) or 'none'}."
    )


def _stands(
    spec: ProductSpec,
    store: StoreResource,
    tables: TableStore,
    known: PartitionRecord,
    request: Mapping[str, Any],
    code: str,
) -> bool:
    """Tell whether a cutoff's checkpoint is the one that would be trained now.

    The fingerprint of older code covered whole modules and every installed library, so it says nothing about today; of
    such a checkpoint its manifest is asked.
    """
    if not adoption.is_before(known.code_digest):
        return known.is_made_from({"fingerprint": request["fingerprint"]}, code)
    try:
        manifest = store.artifacts.get_json(known.content_digest)
        config = store.artifacts.get_json(manifest["config"])
    except ArtifactProblem:
        return False
    is_same = (
        config["training"] == json.loads(canonical(asdict(spec.training)))
        and manifest["computed"] == {name: request[name] for name in ("device", "precision")}
        and manifest["data"] == {name: request[name] for name in ("features", "outcomes")}
        and all(manifest[name] == request[name] for name in ("training_keys", "holdout_keys", "known_before"))
    )
    return is_same and adoption.is_made_by(tables, known, code)


def _result(notes: Mapping[str, Any], digest: str, *, is_memoised: bool) -> dg.MaterializeResult:
    history, used, over = notes["history"], notes.get("use") or {}, notes.get("over_budget")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(digest),
        metadata={
            "checkpoint_sha256": digest,
            "is_memoised": is_memoised,
            "loss_curve": values.image(plots.loss_curve(history), "Training loss by epoch"),
            "epochs": values.table(history),
            "baselines": values.table(
                [{"baseline": name, "train_log_loss": loss} for name, loss in notes["baselines"].items()]
            ),
            "device": notes["device"],
            "precision": notes["precision"],
            "cpu_s": notes["cpu_s"],
            "peak_memory_mb": notes["peak_memory_mb"],
            "resumed_from_step": notes["resumed_from_step"],
            **use.told(used),
            **(
                {"use": values.image(use_plots.use_chart(used), "CPU, memory and GPU over the training")}
                if used
                else {}
            ),
            **({} if over is None else {"over_budget_reason": over["why"], "over_budget_usd": over["over_usd"]}),
        },
    )
