"""A cluster's certificates, by openssl, and the kubeconfigs that hold them."""

import base64
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

EC_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
DAYS = ("-days", "30")


@dataclass(frozen=True)
class Authority:
    """A certificate authority, whose files and certificates lie in one folder."""

    folder: Path
    name: str

    @property
    def certificate(self) -> Path:
        return self.folder / f"{self.name}.crt"

    def create(self) -> None:
        files = ("-keyout", f"{self.name}.key", "-out", f"{self.name}.crt")
        _openssl(self.folder, "req", "-x509", *EC_KEY, *DAYS, *files, "-subj", f"/CN={self.name}")

    def sign(self, name: str, subject: str, alternatives: str = "", folder: Path | None = None) -> None:
        """Write NAME.key and NAME.crt, good for servers and clients."""
        at = folder or self.folder
        extensions = "extendedKeyUsage=serverAuth,clientAuth\n"
        extensions += f"subjectAltName={alternatives}\n" if alternatives else ""
        (at / f"{name}.ext").write_text(extensions, encoding="ascii")
        _openssl(at, "req", "-new", *EC_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
        files = ("-in", f"{name}.csr", "-out", f"{name}.crt", "-extfile", f"{name}.ext")
        signer = ("-CA", str(self.certificate), "-CAkey", str(self.folder / f"{self.name}.key"), "-CAcreateserial")
        _openssl(at, "x509", "-req", *DAYS, *files, *signer)


def create_account_keys(folder: Path) -> None:
    """Write accounts.key and accounts.pub, with which tokens of service accounts are signed and verified."""
    _openssl(folder, "genrsa", "-out", "accounts.key", "2048")
    _openssl(folder, "rsa", "-in", "accounts.key", "-pubout", "-out", "accounts.pub")


def write_kubeconfig(path: Path, server: str, authority: Authority, pair: Path) -> None:
    """Write a kubeconfig for the certificate PAIR.crt with its key PAIR.key."""
    user = {
        "client-certificate-data": _encoded(pair.with_suffix(".crt")),
        "client-key-data": _encoded(pair.with_suffix(".key")),
    }
    cluster = {"server": server, "certificate-authority-data": _encoded(authority.certificate)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "kube", "cluster": cluster}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": "kube", "context": {"cluster": "kube", "user": "user"}}],
        "current-context": "kube",
    }
    path.write_text(json.dumps(config, indent=1), encoding="ascii")


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")


def _openssl(folder: Path, *argv: str) -> None:
    ended = subprocess.run(["openssl", *argv], cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"openssl {argv[0]}: {ended.stderr}")
