"""The code digest of a stage: the modules of its maker, and every value that the maker refers to."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from platform_assets.base import naming
from platform_assets.engine import digests, product_files
from platform_assets.engine.digests import cache, definitions, modules
from platform_assets.product.monitoring import CrossRule
from platform_assets.product.spec import Product
from platform_assets.product.tasks import Binary, MultiClass, Regression, Task
from tests.doubles.products import hourly_temperature
from tests.goldens.stages import digests_of, makers
from tests.goldens.watching import counted, functions_of

SPEC = hourly_temperature.SPEC


def stages(spec: Product) -> dict[str, str]:
    first = spec.sources[0].name
    others = {naming.stage(stage, source.name) for source in spec.sources[1:] for stage in ("raw", "validated")}
    results = {stage: digest for stage, digest in digests_of(spec).items() if stage not in others}
    return {stage.removesuffix(f"_{first}"): digest for stage, digest in results.items()}


def changed_stages(change: Callable[[Product], Product]) -> set[str]:
    before, after = stages(SPEC), stages(change(SPEC))
    return {stage for stage in before if before[stage] != after[stage]}


def stages_changed_by_module(name: str, monkeypatch: pytest.MonkeyPatch, spec: Product = SPEC) -> set[str]:
    """Return the stages whose digest changes with every definition of a module."""
    before, definition = stages(spec), definitions._definition
    assert modules.is_ours(name)

    def other(reference: str) -> cache.Entry:
        digest, names, files = definition(reference)
        return f"other {digest}" if reference.startswith(f"{name}:") else digest, names, files

    monkeypatch.setattr(definitions, "_definition", other)
    return {stage for stage, digest in stages(spec).items() if before[stage] != digest}


ALL = set(stages(SPEC))


@pytest.mark.parametrize("spec", [SPEC, *product_files.load_all()], ids=lambda spec: str(spec.name))
@pytest.mark.parametrize(
    "name",
    [
        *(
            "platform_assets.operations.views.plots",
            "platform_assets.launch.profiles",
        ),
        *("platform_assets.base.settings", "platform_assets.launch.prices", "platform_assets.kubernetes.evidence"),
        *("platform_assets.engine.stage", "platform_assets.engine.ranges", "platform_assets.product.spec"),
        *("platform_assets.base.failures", "platform_assets.launch.endings"),
    ],
)
def test_charts_prices_evidence_and_the_engine_change_no_digest(
    name: str, spec: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stages_changed_by_module(name, monkeypatch, spec) == set()


@pytest.mark.parametrize("spec", product_files.load_all(), ids=lambda spec: str(spec.name))
def test_our_products_functions_never_make_the_whole_file_count(spec: Product) -> None:
    functions = [item for maker in makers(spec).values() for item in functions_of(maker)]
    assert {item.__qualname__: digests.widening_line(item) for item in functions if digests.widening_line(item)} == {}


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("platform_assets.data.validation", {"validated", "predictions"}),
        ("platform_assets.training.train", {"checkpoint", "onnx"}),
        ("platform_assets.training.export", {"onnx"}),
        ("platform_assets.monitoring.faults", {"drift"}),
        ("platform_assets.monitoring.policy", {"decision"}),
        ("platform_assets.evaluation.verdict", {"evaluation"}),
        ("platform_assets.base.keys", {"validated", "features", "predictions", "drift", "performance", "onnx"}),
    ],
)
def test_a_constant_changes_the_digests_of_the_stages_of_its_module(
    name: str, stages: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stages <= stages_changed_by_module(name, monkeypatch) < ALL


def test_what_names_content_changes_every_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in digests.CARRIERS:
        module = name.partition(":")[0]
        assert counted(name) is not None, f"{name} is not a definition"
        assert stages_changed_by_module(module, monkeypatch) == ALL
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("platform_assets.data.stage_inputs", {"validated", "features", "predictions", "drift", "performance"}),
        ("platform_assets.store.landing", {"raw"}),
        ("platform_assets.store.history.reader", {"predictions", "drift", "performance", "evaluation", "decision"}),
        ("platform_assets.store.tables", set()),
        ("platform_assets.prediction_log.parsing", {"predictions"}),
        ("platform_assets.training.stored_models", {"checkpoint", "onnx"}),
        ("platform_assets.monitoring.decision_facts", {"decision"}),
    ],
)
def test_what_brings_rows_changes_the_digests_of_the_stages_that_name_it(
    name: str, stages: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stages_changed_by_module(name, monkeypatch) == stages


JUDGES = {"evaluation", "performance"}


@pytest.mark.parametrize("spec", [SPEC, *product_files.load_all()], ids=lambda spec: str(spec.name))
@pytest.mark.parametrize("kind", [Binary, MultiClass, Regression])
def test_a_measure_moves_what_judges_answers_of_its_kind_alone(
    spec: Product, kind: type[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = stages_changed_by_module(f"platform_assets.evaluation.measures.{kind.kind}", monkeypatch, spec)
    assert changed == (JUDGES if isinstance(spec.task, kind) else set())


@pytest.mark.parametrize("name", ["metrics", "clustered", "paired", "promises", "promise_effects", "measures.base"])
def test_statistics_move_no_weights_and_no_labels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for spec in (SPEC, *product_files.load_all()):
        changed = stages_changed_by_module(f"platform_assets.evaluation.{name}", monkeypatch, spec)
        assert changed <= JUDGES, (spec.name, changed)
        monkeypatch.undo()


def test_a_budget_a_description_and_a_size_change_no_digest() -> None:
    def reworded(spec: Product) -> Product:
        sources = tuple(replace(item, description="Others.", deadline=timedelta(days=3)) for item in spec.sources)
        return replace(
            spec,
            sources=sources,
            description="Something else.",
            owner="team:others",
            retraining=replace(spec.retraining, monthly_budget_usd=7.0),
            training=replace(spec.training, profile="gpu_spot"),
        )

    assert changed_stages(reworded) == set()


def test_a_value_changes_the_digests_of_the_stages_that_use_it() -> None:
    assert changed_stages(lambda spec: replace(spec, training=replace(spec.training, seed=9))) == {"checkpoint", "onnx"}
    assert changed_stages(lambda spec: replace(spec, monitors=replace(spec.monitors, margin=1.5))) == {"drift"}
    assert changed_stages(lambda spec: replace(spec, gates=replace(spec.gates, confidence=0.9))) == {
        "performance",
        "evaluation",
    }
    *others, last = SPEC.fields
    bounded = (*others, replace(last, high=1e6))
    assert "raw" not in changed_stages(lambda spec: replace(spec, fields=bounded))
    assert changed_stages(lambda spec: replace(spec, fields=bounded)) >= {"features", "checkpoint", "onnx"}
    described = (*others, replace(last, description="Others."))
    assert changed_stages(lambda spec: replace(spec, fields=described)) == {"onnx"}, "a contract shows descriptions"


def test_a_product_function_changes_the_digests_of_the_stages_that_call_it() -> None:
    def features(tables: Any, window: Any) -> pl.DataFrame:
        return SPEC.features(tables, window)

    assert changed_stages(lambda spec: replace(spec, features=features)) == {"features", "drift"}


@dataclass(frozen=True)
class Holder:
    value: Any


class Plain:
    def __init__(self, size: int) -> None:
        self.size = size


def named(size: int) -> int:
    return size


DIFFERENT = [
    *(None, False, 0, 0.0, "0", "0.0", 1, True, 1.0, "1", b"1", float("nan"), float("inf")),
    *((), (1,), [1], {1}, frozenset({1}), {"a": 1}, {"a": 2}, {1: "a"}, (1, 2), (2, 1)),
    *(np.arange(2_000), np.arange(2_000) + (np.arange(2_000) == 1_000), np.float32(1), functools.cache(named)),
    *(date(2020, 1, 1), timedelta(1), pl.String, pl.String(), pl.Datetime("us"), pl.Datetime("ms")),
    *(named, len, max, functools.partial(named, 1), functools.partial(named, 2), Binary(), Plain(1), Plain(2), Plain),
    *(Plain(1).__init__, *(CrossRule(name=name, sources=("a",), broken=named) for name in "ab")),
]  # fmt: skip


def test_other_values_have_other_digests() -> None:
    results = [digests.code_digest(Holder(value)) for value in DIFFERENT]
    assert results == [digests.code_digest(Holder(value)) for value in DIFFERENT]
    assert len(set(results)) == len(results)


def test_order_counts_only_where_it_matters() -> None:
    assert digests.code_digest(Holder({"a": 1, "b": 2})) != digests.code_digest(Holder({"b": 2, "a": 1}))
    assert digests.code_digest(Holder({"a", "b"})) == digests.code_digest(Holder({"b", "a"}))
    assert digests.code_digest(Holder(["a", "b"])) != digests.code_digest(Holder(["b", "a"]))


@pytest.mark.parametrize("value", [object(), pl.DataFrame({"a": [1]}), pl.col("a"), iter([1])], ids=type)
def test_an_incomparable_value_is_refused_by_name(value: Any) -> None:
    with pytest.raises(ValueError, match=r"(?s)Holder\.value\[1\] is .*; use plain values, a dataclass, or a function"):
        digests.code_digest(Holder([1, value]))
