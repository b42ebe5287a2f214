"""Which account a run gets, and its names."""

import pytest
import yaml

from platform_assets.base import accounts
from platform_assets.base.settings import REPOSITORY


@pytest.mark.parametrize(
    ("job", "stages", "account"),
    [
        ("advance__orders", (), "advance"),
        ("retrain__orders", ("checkpoint", "onnx", "evaluation", "service", "release"), "retrain"),
        ("retrain__orders", ("release",), "retrain"),
        ("release__orders", ("release",), "release"),
        ("accept__orders", (), "intervention"),
        ("repair__orders", (), "intervention"),
        ("rebuild__orders", (), "intervention"),
        ("maintain__orders", (), "maintenance"),
        ("verify__orders", (), "advance"),
        ("__ASSET_JOB", ("raw_orders", "features"), "advance"),
        ("__ASSET_JOB", ("features", "checkpoint"), "retrain"),
        ("__ASSET_JOB", ("evaluation", "release"), "retrain"),
        ("__ASSET_JOB", ("release",), "release"),
        ("__ASSET_JOB", (), "retrain"),
        ("a_job_of_somebody_else", (), "advance"),
    ],
)
def test_a_run_gets_the_account_of_what_was_asked_for(job: str, stages: tuple[str, ...], account: str) -> None:
    assert accounts.of_run(job, stages).name == account


def test_the_account_of_each_run_is_in_the_manifests() -> None:
    text = (REPOSITORY / "deploy/kubernetes/base/rights.yaml").read_text(encoding="utf-8")
    there = {item["metadata"]["name"] for item in yaml.safe_load_all(text) if item["kind"] == "ServiceAccount"}
    assert {account.service_account() for account in (*accounts.OF_RUNS, accounts.CODE)} <= there


def test_only_accounts_that_judge_or_release_have_the_signing_key() -> None:
    assert {account.name for account in accounts.ACCOUNTS if account.signs} == {"retrain", "release"}


def test_a_products_account_has_a_name_that_kubernetes_takes() -> None:
    assert accounts.STEP.service_account("flight_delays") == "driftline-step-flight-delays"
    assert accounts.SERVICE.store_secret("orders") == "driftline-store-service-orders"
