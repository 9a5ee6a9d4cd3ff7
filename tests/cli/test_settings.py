"""uv's settings at the command line: taken in once, shown, and used again as they are recorded."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Stoke, only_job
from tests.package_index import PackageIndex

SHOWS = "import alpha; print(alpha.version)"


def test_recorded_settings_are_shown_and_apply_to_a_rerun(
    stoke: Stoke, index: PackageIndex, tmp_path: Path
) -> None:
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("alpha<2\n")
    bound = {"UV_CONSTRAINT": str(constraints)}
    done = stoke("run", "-q", "-w", "alpha", "-c", SHOWS, env=bound)
    assert done.stdout == b"1.0\n", done.stderr
    job = only_job().id
    shown = stoke("show", job).stdout.decode()
    assert 'constraint-dependencies = ["alpha<2"]  (UV_CONSTRAINT)' in shown

    constraints.unlink()
    assert stoke("rerun", "-q", job).stdout == b"1.0\n"
    document = json.loads(stoke("show", "--json", job).stdout)
    request = tmp_path / "request.json"
    request.write_text(json.dumps(document["spec"]))
    assert stoke("submit", "-q", str(request)).stdout == b"1.0\n"
    assert stoke("run", "-q", "-w", "alpha", "-c", SHOWS).stdout == b"2.0\n"


def test_a_variable_of_an_address_is_asked_for_by_name(stoke: Stoke, index: PackageIndex) -> None:
    address = index.file_url("alpha", "${STAGE}")
    refused = stoke("run", "-w", f"alpha @ {address}", "-c", SHOWS)
    assert refused.returncode == 2
    assert b"names the variable STAGE, which is not set" in refused.stderr
    assert b"hint: export STAGE=..." in refused.stderr
    found = stoke("run", "-q", "-w", f"alpha @ {address}", "-c", SHOWS, env={"STAGE": "1.0"})
    assert found.stdout == b"1.0\n", found.stderr
