"""Dagster's launcher of runs as pods, which also tells each run its product: its process builds no other definitions.

Building the definitions of all products would cost every run CPU time that grows with their number (row P11).
`deploy/kubernetes/base/dagster.yaml` names this class.
"""

from __future__ import annotations

import dagster as dg
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext

from platform_assets.settings import ONLY_PRODUCT
from resources.run_coordinator import products_of


class RunLauncher(K8sRunLauncher):
    """The launcher of runs."""

    def get_container_context_for_run(self, dagster_run: dg.DagsterRun) -> K8sContainerContext:
        """Return what a run's pod gets beyond the settings: the variable with its product, if it has exactly one."""
        context = super().get_container_context_for_run(dagster_run)
        products = products_of(dagster_run)
        if len(products) != 1:
            return context
        return context.merge(K8sContainerContext(env=[{"name": ONLY_PRODUCT, "value": min(products)}]))
