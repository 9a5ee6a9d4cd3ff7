"""Wheels of pure Python packages that are installed beside the tests, packed again for their index."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from importlib.metadata import distribution

from tests.package_index import PackageIndex

_NOT_IN_WHEELS = {"INSTALLER", "RECORD", "REQUESTED", "direct_url.json"}


def add_installed(index: PackageIndex, *names: str) -> None:
    for name in names:
        found = distribution(name)
        file = f"{name.replace('-', '_')}-{found.version}-py3-none-any.whl"
        index.add_file(file, _packed(name))


def _packed(name: str) -> bytes:
    found = distribution(name)
    assert "Tag: py3-none-any" in (found.read_text("WHEEL") or ""), f"{name} is not pure Python"
    contents = {
        path.as_posix(): path.read_binary()
        for path in found.files or ()
        if ".." not in path.parts and path.suffix != ".pyc" and path.name not in _NOT_IN_WHEELS
    }
    (info,) = {path.partition("/")[0] for path in contents if ".dist-info/" in path}
    record = f"{info}/RECORD"
    rows = [f"{path},sha256={_digest(data)},{len(data)}" for path, data in contents.items()]
    contents[record] = "\n".join([*rows, f"{record},,", ""]).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in contents.items():
            archive.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), data)
    return out.getvalue()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
