"""Write a measurement and its proposal as text for a terminal."""

from __future__ import annotations

from platform_assets.capacity.proposal import Measured, Proposal, Step

_COLUMNS = "requests/s     sent   failed   p50 ms   p99 ms  sent late ms   cores  CPU ms/request"
_MEBIBYTE = 1024**2


def as_text(product: str, measured: Measured, proposal: Proposal) -> str:
    """Return the table of steps, and below it what is proposed and why."""
    best = measured.best
    assert best is not None  # there is a proposal
    over = next((step for step in measured.steps if not measured.is_kept(step)), None)
    return "\n".join(
        [
            f"{product}: one replica, {measured.machine}",
            f"  ready after {measured.ready_s:.1f} s, {measured.memory_bytes / _MEBIBYTE:.0f} MB after the load",
            f"  {_COLUMNS}",
            *(f"  {_line(step)}" for step in measured.steps),
            f"  {_bound_words(measured.bound_ms, best, over)}",
            "",
            f"Proposed for {product}'s file:",
            f"    pods={_pods(proposal)}",
            *(f"  {sentence}" for sentence in _reasons(best, proposal)),
        ]
    )


def _line(step: Step) -> str:
    return (
        f"{step.per_second:10.0f} {step.sent:8} {step.failed:8} {step.p50_ms:8.1f} {step.p99_ms:8.1f} "
        f"{step.late_ms:13.1f} {step.cores:7.2f} {step.cpu_ms:15.3f}"
    )


def _bound_words(bound_ms: float, best: Step, over: Step | None) -> str:
    if over is None:
        return f"p99 stays within the product's {bound_ms:g} ms at every step, up to {best.per_second:.0f} per second."
    return (
        f"p99 keeps the product's {bound_ms:g} ms up to {best.per_second:.0f} requests per second; at "
        f"{over.per_second:.0f} it is {over.p99_ms:.1f} ms, and {over.failed} of {over.sent} requests failed."
    )


def _pods(proposal: Proposal) -> str:
    fields = ("replicas", "replicas_max", "cores", "memory_gb", "cpu_target")
    return f"Pods({', '.join(f'{name}={getattr(proposal, name):g}' for name in fields)})"


def _reasons(best: Step, proposal: Proposal) -> list[str]:
    others, peak = f"{proposal.replicas - 1} of {proposal.replicas} replicas", proposal.peak_per_second
    return [
        f"cpu_target: at {best.cores:.0%} of a core p99 kept the bound; {others} can take over (tolerance 10%).",
        f"replicas_max: this many answer {peak:.0f} requests per second of {best.cpu_ms:.2f} CPU-ms at the target.",
        f"After one of them is lost the others use {proposal.used_after_loss:.0%} of their reserved CPU.",
        "memory_gb: what two workers and the trial of the next model need, at least a quarter more than was measured.",
        "Measured on this machine with one repeated request: measure where pods will run before you promise a rate.",
    ]
