"""Print the versions of an image's main packages as one label. Runs in the image."""

import platform
from importlib.metadata import PackageNotFoundError, version

NAMES = ("bentoml", "dagster", "deltalake", "msgspec", "numpy", "obstore", "onnxruntime", "pandera", "polars", "torch")


def installed(name: str) -> str:
    """Return a package's name and version, or nothing if it is not installed."""
    try:
        return f"{name}={version(name)}"
    except PackageNotFoundError:
        return ""


if __name__ == "__main__":
    print(f"python={platform.python_version()}", *filter(None, map(installed, NAMES)))
