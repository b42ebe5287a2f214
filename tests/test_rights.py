"""What deploy/ grants on Kubernetes: each right has a reason and a test that used it, and nothing is granted widely."""

import yaml

from platform_assets.base.settings import REPOSITORY
from tests.cluster.rights import CODE, DAEMON, DOCUMENT, FILE, REASONS, RUN, WEBSERVER, granted, recorded


def test_each_granted_right_has_a_reason_and_each_reason_a_right() -> None:
    assert granted() == set(REASONS)


def test_the_page_lists_each_right_with_the_test_that_used_it() -> None:
    rows = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    listed = {tuple(cell.strip() for cell in row.strip("|").split("|")) for row in rows}
    situations = recorded()
    assert {(account, request, place, reason) for account, request, place, reason, _ in listed} == {
        (f"`{right.account}`", f"`{right.verb} {right.resource}`", right.place, reason)
        for right, reason in REASONS.items()
    }
    for test in situations.values():
        path, _, name = test.strip("`").partition("::")
        assert path.startswith("tests/cluster/")
        assert f"def {name}(" in (REPOSITORY / path).read_text(encoding="utf-8"), test


def test_no_wildcard_no_secrets_and_no_exec() -> None:
    rights = granted()
    assert not [right for right in rights if "*" in (right.verb, right.resource)]
    assert not {right.resource for right in rights} & {"secrets", "pods/exec", "pods/attach", "pods/portforward"}


def test_accounts_without_rights_have_no_token() -> None:
    assert {right.account for right in granted()} == {RUN, DAEMON, WEBSERVER, CODE}
    texts = [path.read_text(encoding="utf-8") for path in (FILE, FILE.with_name("migration.yaml"))]
    items = [item for text in texts for item in yaml.safe_load_all(text) if item["kind"] == "ServiceAccount"]
    with_token = {item["metadata"]["name"] for item in items if item.get("automountServiceAccountToken", True)}
    assert with_token == {RUN, DAEMON, WEBSERVER, CODE}
