"""Load one replica of a product's service on this machine, and propose what its pods get: `driftline capacity`."""

from __future__ import annotations

from platform_assets.capacity.measuring import CapacityProblem, measure
from platform_assets.capacity.proposal import Measured, Proposal, Step, propose
from platform_assets.capacity.words import as_text

__all__ = ["CapacityProblem", "Measured", "Proposal", "Step", "as_text", "measure", "propose"]
