"""What deploy/ lets connect: each connection has a reason, each has its rules, and the page lists them."""

import os

from tests.cluster import rights
from tests.cluster.connections import (
    ANY,
    CONTROLLER,
    DOCUMENT,
    PORTS,
    REASONS,
    SCRAPER,
    Connection,
    document,
    policies,
    rules,
)

RECORD = "RECORD_CONNECTIONS"
OUTSIDE = {ANY, CONTROLLER, SCRAPER}


def test_each_allowed_connection_has_a_reason_and_each_reason_its_rules() -> None:
    by_rule = rules(policies())
    assert set[Connection]().union(*by_rule.values()) == set(REASONS)
    for connection in REASONS:
        count = sum(connection in allowed for allowed in by_rule.values())
        assert count == (2 if connection.target in PORTS and connection.source not in OUTSIDE else 1), connection


def test_everything_else_is_denied_in_and_out() -> None:
    assert policies()[0]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_each_rule_names_its_ports_but_that_of_the_ingress_controller() -> None:
    for item in policies()[1:]:
        spec = item["spec"]
        (rule,) = spec.get("egress") or spec["ingress"]
        assert bool(rule.get("ports")) is (item["metadata"]["name"] != "proxy-from")


def test_the_page_lists_them() -> None:
    if os.environ.get(RECORD):
        DOCUMENT.write_text(rights.document({}), encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8").endswith(document()), f"run this test with {RECORD}=1"
