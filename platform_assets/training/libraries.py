"""List the libraries whose versions determine the bytes of a training, and read their versions."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

# Not every installed package, and not the image's digest: a new linter would abandon saves and pods.
NAMES = (
    "lightgbm",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "polars",
    "safetensors",
    "scikit-learn",
    "scipy",
    "skl2onnx",
    "torch",
)
"""A fingerprint holds the version of each one installed where the step runs. Other packages, such as linters, change no
byte.
"""
IMAGE = "image"
"""Stands for the versions in an image whose label cannot be read: each image then counts as different versions."""


def installed(more: Iterable[str] = ()) -> dict[str, str]:
    """Return the installed versions by name: of `NAMES`, and of the packages that an image of one's own adds."""
    versions = {}
    for name in {*NAMES, *more}:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def has_torch() -> bool:
    """Return whether torch is installed: trees and estimators need none."""
    return "torch" in installed()


def as_text(versions: dict[str, str]) -> str:
    """Format versions as an image label: `numpy=2.3.1 torch=2.13.0`."""
    return " ".join(f"{name}={number}" for name, number in sorted(versions.items()))


def from_text(text: str) -> dict[str, str]:
    """Parse an image label; empty for any other text."""
    pairs = [pair.partition("=") for pair in text.split()]
    return {name: number for name, _, number in pairs} if all(number for _, _, number in pairs) else {}


if __name__ == "__main__":
    print(as_text(installed(sys.argv[1:])))
