"""Say which libraries make the bytes of a training, and in which versions."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

NAMES = (
    "lightgbm",
    "numpy",
    "onnx",
    "onnxmltools",
    "onnxruntime",
    "onnxscript",
    "polars",
    "safetensors",
    "scikit-learn",
    "torch",
)
"""A fingerprint holds the version of each that is installed where the step runs; another linter changes no byte."""
IMAGE = "image"
"""Stands for the versions in an image whose label nobody could read: another image counts as other versions."""
LABEL = "driftline.libraries"
"""Of an image: what `platform_assets.libraries` prints in it."""


def installed() -> dict[str, str]:
    """Return the versions of those that are installed here, by name."""
    found = {}
    for name in NAMES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def as_text(versions: dict[str, str]) -> str:
    """Return versions as a label holds them: `numpy=2.3.1 torch=2.13.0`."""
    return " ".join(f"{name}={number}" for name, number in sorted(versions.items()))


def from_text(text: str) -> dict[str, str]:
    """Return the versions of a label; none of a text that is no such label."""
    pairs = [word.partition("=") for word in text.split()]
    return {name: number for name, _, number in pairs} if all(number for _, _, number in pairs) else {}


if __name__ == "__main__":
    print(as_text(installed()))
