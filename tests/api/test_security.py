"""Who may do what, and what reaches the server's machine: nothing but requests."""

from __future__ import annotations

import json
import os
import ssl
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import requests

from stoke.api.tokens import TokenFile, api_folder
from stoke.config.model import Config
from stoke.errors import EngineError
from stoke.files.paths import state_dir
from stoke.request.spec import IndexSettings
from tests.api.served import STOKE, Client, make_token, problem, serving
from tests.hints import command, is_hint, refused
from tests.test_import_hygiene import loaded_by

PATHS = [
    ("GET", "/api/v1/tasks"), ("POST", "/api/v1/tasks/submit"), ("GET", "/api/v1/tasks/x"),
    ("DELETE", "/api/v1/tasks/x"), ("POST", "/api/v1/tasks/x/rerun"), ("GET", "/api/v1/tasks/x/logs"),
    ("GET", "/api/v1/tasks/x/results"), ("GET", "/api/v1/tasks/x/results/archive"),
    ("GET", "/api/v1/tasks/x/results/files/y"), ("GET", "/api/v1/caches"),
    ("POST", "/api/v1/caches/prune"), ("POST", "/api/v1/caches/warm"),
    ("POST", "/api/v1/caches/clear"), ("GET", "/metrics"),
]  # fmt: skip


def audit() -> list[dict[str, Any]]:
    lines = (api_folder() / "audit.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


# --- tokens ---------------------------------------------------------------------------------------


def test_nothing_but_health_and_openapi_is_served_without_a_token(client: Client) -> None:
    for secret in (None, "", "stoke_wrong", "x" * 5000, "Bearer"):
        stranger = Client(client.address, secret)
        for method, path in PATHS:
            answer = stranger.ask(method, path)
            assert answer.status_code in (401, 429), (method, path, answer.text)
            problem(answer)
    assert Client(client.address, None).get("/healthz").json() == {"status": "ok"}
    assert client.get("/api/v1/tasks").json()["total"] == 0


def test_the_hint_of_a_missing_token_is_one_that_helps(client: Client) -> None:
    answer = Client(client.address, None).get("/api/v1/tasks")
    said = is_hint(
        problem(answer)["hint"],
        "make a token: {}; send it: Authorization: Bearer TOKEN",
    )
    made = subprocess.run([STOKE, *command(said)], check=True, capture_output=True, text=True)
    helped = Client(client.address, made.stdout.strip()).get("/api/v1/tasks")
    assert helped.status_code == 200


def test_wrong_tokens_are_slowed_down(client: Client) -> None:
    stranger = Client(client.address, "stoke_guess")
    statuses = [stranger.get("/api/v1/tasks").status_code for _ in range(80)]
    assert statuses[0] == 401 and statuses[-1] == 429


def test_rights(client: Client) -> None:
    reader = Client(client.address, make_token("reader", "read"))
    writer = Client(client.address, make_token("writer", "submit"))
    job = writer.run({"code": "print(1)"})["id"]
    assert reader.log(job) == b"1\n" and reader.get("/metrics").status_code == 200
    for method, path in {
        "POST": "/api/v1/tasks/submit",
        "DELETE": f"/api/v1/tasks/{job}",
    }.items():
        answer = reader.ask(method, path)
        assert answer.status_code == 403 and "no right to submit" in problem(answer)["detail"]
    assert writer.post("/api/v1/caches/clear", {"scope": "default"}).status_code == 403


def test_scopes(client: Client) -> None:
    team = Client(client.address, make_token("team", "submit", "team-a", "team-b"))
    ours = team.run({"code": "print(1)"})
    assert ours["scope"] == "team-a"
    assert team.submit({"code": "1", "scope": "team-b"})["scope"] == "team-b"
    theirs = client.run({"code": "print(2)"})["id"]
    for method, rest in [
        ("GET", ""), ("DELETE", ""), ("GET", "/logs"), ("GET", "/results"), ("POST", "/rerun"),
    ]:  # fmt: skip
        assert team.ask(method, f"/api/v1/tasks/{theirs}{rest}").status_code == 404
    assert {job["scope"] for job in team.get("/api/v1/tasks").json()["tasks"]} == {
        "team-a",
        "team-b",
    }
    assert client.get("/api/v1/tasks").json()["total"] == 3
    for body in ({"code": "1", "scope": "default"}, {"code": "1", "workspace": "theirs"}):
        assert team.post("/api/v1/tasks/submit", body).status_code == 403
    assert team.get("/metrics").status_code == 403
    assert {one["scope"] for one in team.get("/api/v1/caches").json()["caches"]} <= {
        "team-a",
        "team-b",
    }


def test_a_token_counts_from_its_making_to_its_removal(client: Client) -> None:
    made = subprocess.run(
        [STOKE, "api", "token", "add", "late", "--right", "read"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    late = Client(client.address, made.stdout.strip())
    assert late.get("/api/v1/tasks").status_code == 200
    listed = subprocess.run(
        [STOKE, "api", "token", "ls", "--json"], check=True, capture_output=True, text=True
    )
    assert {one["name"]: one["right"] for one in json.loads(listed.stdout)} == {
        "admin": "admin",
        "late": "read",
    }
    subprocess.run([STOKE, "api", "token", "rm", "late"], check=True, capture_output=True)
    assert late.get("/api/v1/tasks").status_code == 401


def test_tokens_are_stored_as_hashes_that_only_their_owner_reads(own_home: Path) -> None:
    secret = make_token("ci")
    path = api_folder() / "tokens.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secret not in path.read_text()
    tokens = TokenFile()
    assert tokens.find(secret) is not None and tokens.find(secret[:-1]) is None
    path.chmod(0o644)
    said = refused(lambda: TokenFile().all(), "close it to them: chmod 600 {}")
    subprocess.run(["chmod", *command(said, "chmod")], check=True)
    assert tokens.find(secret) is not None


def test_hints_about_tokens_help(own_home: Path) -> None:
    tokens = TokenFile()
    said = refused(lambda: tokens.remove("ci"), "list them: stoke api token ls")
    subprocess.run([STOKE, *command(said)], check=True, capture_output=True)
    tokens.add("ci", "read")
    said = refused(lambda: tokens.add("ci", "submit"), "remove it first: stoke api token rm {}")
    subprocess.run([STOKE, *command(said)], check=True, capture_output=True)
    tokens.add("ci", "submit")
    (api_folder() / "tokens.json").write_text("{")
    said = refused(tokens.all, "remove the file, then make new ones: rm {}")
    subprocess.run(["rm", *command(said, "rm")], check=True)
    assert tokens.all() == ()


# --- listening ------------------------------------------------------------------------------------


def test_the_server_needs_a_token(own_home: Path) -> None:
    from stoke.api.server import check_listening

    config = Config().api
    said = refused(
        lambda: check_listening(config, without_tls=False), "make one: stoke api token add me"
    )
    subprocess.run([STOKE, *command(said)], check=True, capture_output=True)
    check_listening(config, without_tls=False)


def test_other_machines_are_served_with_tls_or_an_explicit_option(own_home: Path) -> None:
    from stoke.api.server import check_listening

    make_token("ci")
    for host in ("0.0.0.0", "::", "192.0.2.7", "jobs.example.invalid"):
        config = Config().api.model_copy(update={"host": host})
        said = refused(
            lambda config=config: check_listening(config, without_tls=False),  # type: ignore[misc]
            "name a certificate: stoke {} --certificate FILE --key FILE; or have a proxy do TLS: "
            "stoke {} --without-tls",
        )
        assert command(said) == ["api", "--without-tls"]
        check_listening(config, without_tls=True)
        check_listening(config.model_copy(update={"certificate": "x"}), without_tls=False)
    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        check_listening(Config().api.model_copy(update={"host": host}), without_tls=False)


def test_a_port_that_is_taken_is_named(client: Client) -> None:
    def serve_there() -> None:
        with serving(port=client.port):
            pass

    done = subprocess.run(
        [STOKE, "api", "--port", str(client.port)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 125 and "choose another port: stoke api --port 0" in done.stderr


def test_tls(own_home: Path, tmp_path: Path) -> None:
    pair = tmp_path / "pair.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key.pem",
         "-out", pair],
        check=True, capture_output=True,
    )  # fmt: skip
    secret = make_token("ci")
    with serving(certificate=str(pair), key=str(tmp_path / "key.pem")) as address:
        assert address.startswith("https://127.0.0.1:")
        answer = requests.get(
            f"{address}/api/v1/tasks",
            headers={"Authorization": f"Bearer {secret}"},
            verify=str(pair),
            timeout=30,
        )
        assert answer.status_code == 200
        port = int(address.rpartition(":")[2])
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(pair)
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(OSError), Client(f"x:{port}", None).connect() as raw:
            old.wrap_socket(raw, server_hostname="127.0.0.1")


def test_an_unusable_certificate_is_named_with_its_key(tmp_path: Path) -> None:
    from stoke.api.listening import tls_context

    key, locked, none = tmp_path / "key.pem", tmp_path / "locked.pem", tmp_path / "none.pem"
    certificate = tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run(
        ["openssl", "rsa", "-aes128", "-passout", "pass:secret", "-in", key, "-out", locked],
        check=True, capture_output=True,
    )  # fmt: skip

    def reason(certificate: Path, key: Path | None) -> str:
        config = Config().api.model_copy(
            update={"certificate": str(certificate), "key": key and str(key)}
        )
        with pytest.raises(EngineError, match="cannot read the certificate") as caught:
            tls_context(config)
        return caught.value.what

    assert reason(certificate, none).endswith(
        f"{certificate} and {none}: No such file or directory"
    )
    in_pem = "this must be a certificate and its key, without a password, in PEM"
    assert reason(certificate, None).endswith(f"{certificate}: {in_pem}")
    # OpenSSL would ask for the password at the terminal.
    assert reason(certificate, locked).endswith(f"{certificate} and {locked}: {in_pem}")


def test_a_key_without_a_certificate_is_no_tls(own_home: Path) -> None:
    from stoke.api.server import check_listening

    make_token("ci")
    config = Config().api.model_copy(update={"key": "key.pem"})
    said = refused(
        lambda: check_listening(config, without_tls=True),
        "name the certificate, too: stoke {} --certificate FILE --key FILE",
    )
    arguments = iter(command(said)[1:])
    given = {name.lstrip("-"): value for name, value in zip(arguments, arguments, strict=True)}
    check_listening(config.model_copy(update=given), without_tls=True)


def test_a_wildcard_is_served_by_the_address_that_a_client_uses(own_home: Path) -> None:
    secret = make_token("ci")
    with serving(host="0.0.0.0") as address:
        assert address.startswith("http://localhost:")
        port = address.rpartition(":")[2]
        assert Client(address, secret).get("/api/v1/tasks").status_code == 200
        client = Client(f"http://127.0.0.2:{port}", secret)
        assert client.get("/api/v1/tasks").status_code == 200
        for host in ("127.0.0.3", "2.0.0.127", "0.0.0.0", "[::1%1]"):
            answer = client.get("/api/v1/tasks", headers={"Host": f"{host}:{port}"})
            assert answer.status_code in (400, 421), host


def test_the_hint_of_an_unknown_host_helps(own_home: Path) -> None:
    secret = make_token("ci")
    named = {"headers": {"Host": "jobs.example.org"}}
    with serving() as address:
        answer = Client(address, secret).get("/api/v1/tasks", **named)
    assert answer.status_code == 421
    said = is_hint(
        problem(answer).get("hint"),
        'list it in the server\'s configuration under [{}]: hosts = ["NAME"]',
    )
    section, _, line = said.rpartition(" under ")[2].partition(": ")
    read = tomllib.loads(f"{section}\n{line}".replace("NAME", "jobs.example.org"))
    with serving(hosts=tuple(read["api"]["hosts"])) as address:
        assert Client(address, secret).get("/api/v1/tasks", **named).status_code == 200


@pytest.mark.parametrize("host", ["192.0.2.1", "jobs.example.invalid"])
def test_an_address_of_another_machine_is_named(own_home: Path, host: str) -> None:
    from stoke.api.listening import listen

    config = Config().api.model_copy(update={"host": host, "port": 0})
    said = refused(
        lambda: listen(config, "api"),
        "choose an address of this machine: stoke {} --host 127.0.0.1",
    )
    listen(config.model_copy(update={"host": command(said)[-1]}), "api").close()


# --- pages of other sites -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "", "[::1", "a b"]
)
def test_a_foreign_host_is_refused(client: Client, host: str) -> None:
    head = f"GET /api/v1/tasks HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
    answer = client.raw(f"{head}Authorization: Bearer {client.secret}\r\n\r\n".encode())
    assert answer.startswith((b"HTTP/1.1 421 ", b"HTTP/1.1 400 ")), answer


@pytest.mark.parametrize(
    "more",
    [
        "Origin: https://evil.example", "Origin: null", "Origin: http://127.0.0.1:1",
        "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site",
        "Origin: http://localhost.evil.example", "Origin: http://[",
    ],
)  # fmt: skip
def test_a_foreign_page_is_refused(client: Client, more: str) -> None:
    head = client.head("POST", "/api/v1/tasks/submit", more, "Content-Length: 0")
    assert client.raw(head + b"\r\n").startswith(b"HTTP/1.1 403 ")
    assert client.get("/api/v1/tasks").json()["total"] == 0
    assert audit()[-1]["status"] == 403


def test_the_own_page_and_listed_ones_are_served(own_home: Path) -> None:
    secret = make_token("ci")
    with serving(origins=["https://jobs.example.org"], hosts=["jobs.example.org"]) as address:
        client = Client(address, secret)
        for origin in (address, "https://jobs.example.org"):
            assert client.get("/api/v1/tasks", headers={"Origin": origin}).status_code == 200
        named = client.get("/api/v1/tasks", headers={"Host": "jobs.example.org"})
        assert named.status_code == 200


def test_a_form_of_a_page_submits_nothing(client: Client) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = client.post("/api/v1/tasks/submit", b"{}", headers={"Content-Type": kind})
        assert answer.status_code == 415
    assert client.get("/api/v1/tasks").json()["total"] == 0


@pytest.mark.parametrize(
    "query",
    ["token=x", "access_token=x", "api_key=x", "apikey=x", "Authorization=x", "a=stoke_xyz"],
)
def test_a_token_in_an_address_is_refused(client: Client, query: str) -> None:
    answer = client.get(f"/api/v1/tasks?{query}")
    assert answer.status_code == 400
    said = is_hint(
        problem(answer)["hint"],
        "replace the one that was sent; send it as a header: Authorization: Bearer TOKEN",
    )
    assert said.endswith("Bearer TOKEN")
    assert client.get("/api/v1/tasks").status_code == 200


# --- what a request may name ----------------------------------------------------------------------

SECRET = "correct-horse-battery"
INDEX = {"url": "https://a.example/simple"}
SCRIPT = '# /// script\n# dependencies = ["six"]\n{}# ///\n1'
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"secrets": {"A": "env:OWN_SECRET"}}, "secrets.A"),
    ({"secrets": {"A": "file:/etc/passwd"}}, "secrets.A"),
    ({"secrets": {"A": "secret:hub/token"}}, "secrets.A"),
    ({"mounts": ["/etc:/data"]}, "mounts[0]"),
    ({"mounts": ["claim:data:/data", "/:/data2:rw"]}, "mounts[1]"),
    ({"project": {"root": "/etc", "script": "passwd"}, "code": ""}, "code"),
    ({"project": {"root": "/etc"}}, "project"),
    ({"shell": True, "code": ""}, "shell"),
    ({"uv": {}}, "uv"),
    ({"uv": {"find-links": {"value": ["/etc"], "source": "x"}}}, "uv"),
    ({"index": {"ca_bundle": "/etc/passwd"}}, "index.ca_bundle"),
    ({"index": {**INDEX, "credentials": "env:OWN_SECRET"}}, "index.credentials"),
    ({"index": {**INDEX, "credentials": "file:/etc/passwd"}}, "index.credentials"),
    ({"index": {"url": "https://a.example/${OWN_SECRET}/simple"}}, "index"),
    ({"dependencies": ["six @ https://a.example/${OWN_SECRET}/six-1.zip"]}, "dependencies"),
    ({"requirements": "--index-url https://${OWN_SECRET}@a.example/simple\nsix"}, "requirements"),
    ({"constraints": "six==${OWN_SECRET}", "dependencies": ["six"]}, "constraints line 1"),
    ({"requirements": "-r /etc/passwd"}, "requirements line 1"),
    ({"requirements": "--find-links /etc\nsix"}, "requirements line 1"),
    ({"requirements": "-e /etc"}, "requirements line 1"),
    ({"requirements": "./six"}, "requirements line 1"),
    ({"dependencies": ["six @ file:///etc"]}, "dependencies[0]"),
    ({"code": SCRIPT.format('# [tool.uv]\n# find-links = ["/etc"]\n')}, "code"),
    ({"code": SCRIPT.format('# [[tool.uv.index]]\n# url = "https://a.example"\n')}, "code"),
    ({"results": ["../../*"]}, "results"),
    ({"workspace": "../../x"}, "workspace"),
    ({"scope": "../x"}, "scope"),
    ({"profile": "../x"}, "profile"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "field"), REFUSED, ids=[f"{n}-{field}" for n, (_, field) in enumerate(REFUSED)]
)
def test_no_path_and_no_secret_of_the_server_can_be_named(
    client: Client, fields: dict[str, Any], field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWN_SECRET", SECRET)
    answer = client.post("/api/v1/tasks/submit", {"code": "print(1)", **fields})
    assert answer.status_code == 422, answer.text
    assert problem(answer)["field"] == field
    assert SECRET not in answer.text and "root:" not in answer.text
    assert client.get("/api/v1/tasks").json()["total"] == 0


def test_listed_secrets_may_be_named_and_are_not_stored(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWN_SECRET", SECRET)
    secret = make_token("ci")
    with serving(secrets=["env:OWN_SECRET"]) as address:
        client = Client(address, secret)
        code = "import os; print(len(os.environ['A']))"
        job = client.run({"code": code, "secrets": {"A": "env:OWN_SECRET"}})
        assert client.log(job["id"]) == b"%d\n" % len(SECRET)
        answer = client.post("/api/v1/tasks/submit", {"code": "1", "secrets": {"A": "env:HOME"}})
        hint = 'have the server\'s owner list it, for example: api.secrets = ["env:HF_TOKEN"]'
        assert problem(answer)["hint"] == hint
    for file in state_dir().rglob("*"):
        if file.is_file():
            assert SECRET.encode() not in file.read_bytes(), file


def test_the_configured_login_reaches_no_index_of_a_client(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGIN", f"user:{SECRET}")
    monkeypatch.setenv("UV_INDEX_CORP_PASSWORD", SECRET)
    secret = make_token("ci")
    config = Config(index=IndexSettings(credentials="env:LOGIN"))
    with serving(config) as address:
        client = Client(address, secret)
        texts = (
            "--index-url http://127.0.0.1:9/simple\nsix",
            "--extra-index-url http://127.0.0.1:9\nsix",
        )
        for requirements in texts:
            job = client.submit({"code": "1", "requirements": requirements})
            assert job["spec"]["index"]["credentials"] is None
            client.ask("DELETE", f"/api/v1/tasks/{job['id']}?grace=0")
            client.over(job["id"])


def test_a_job_with_the_owners_files_is_run_again_by_an_admin_only(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("STOKE_MOUNTS__ROOTS", json.dumps([str(tmp_path)]))
    subprocess.run(
        [STOKE, "run", "-q", "-b", "local", "--mount", f"{tmp_path}/data:/data", "-c", "1",
         "--name", "mounted"],
        check=True, capture_output=True, cwd=tmp_path,
    )  # fmt: skip
    (job,) = client.get("/api/v1/tasks").json()["tasks"]
    writer = Client(client.address, make_token("writer", "submit"))
    answer = writer.post(f"/api/v1/tasks/{job['id']}/rerun")
    assert answer.status_code == 403 and "admin" in problem(answer)["detail"]
    monkeypatch.delenv("STOKE_MOUNTS__ROOTS")
    assert client.post(f"/api/v1/tasks/{job['id']}/rerun").status_code in (202, 422)


def test_only_listed_backends_may_be_named(own_home: Path) -> None:
    secret = make_token("ci")
    with serving(backends=["docker"]) as address:
        client = Client(address, secret)
        for path in ("/api/v1/tasks/submit", "/api/v1/tasks/submit?backend=local"):
            answer = client.post(path, {"code": "1"})
            assert answer.status_code == 403 and "api.backends" in problem(answer)["detail"]


# --- the audit log --------------------------------------------------------------------------------


def test_changes_and_refusals_are_in_the_audit_log(client: Client) -> None:
    job = client.run({"code": "print(1)"})["id"]
    client.get("/api/v1/tasks")
    Client(client.address, None).get("/api/v1/tasks")
    client.ask("DELETE", f"/api/v1/tasks/{job}")
    client.raw(client.head("GET", "/%0d%0a%7b%22token%22:1%7d%e2%80%a8", "Origin: x") + b"\r\n")
    path = api_folder() / "audit.jsonl"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path.read_text().isascii()
    submitted, refused_, stopped, tricked = audit()
    assert (submitted["method"], submitted["path"]) == ("POST", "/api/v1/tasks/submit")
    assert (submitted["token"], submitted["job"], submitted["status"]) == ("admin", job, 202)
    assert (refused_["status"], refused_["path"]) == (401, "/api/v1/tasks")
    assert (stopped["method"], stopped["job"]) == ("DELETE", job)
    assert tricked["path"].startswith("/\r\n") and tricked["status"] == 403
    assert str(client.secret) not in path.read_text()


def test_an_entry_that_a_full_disk_cuts_off_spoils_no_other(own_home: Path) -> None:
    program = (
        "import resource, os\n"
        "from stoke.api.audit import AuditLog\n"
        "from stoke.api.tokens import api_folder\n"
        "log = AuditLog()\nlog.write(number=1)\n"
        "size = (api_folder() / 'audit.jsonl').stat().st_size\n"
        "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))\n"
        "log.write(number=2)\nlog.write(number=3)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))\n"
        "log.write(number=4)\nlog.write(number=5)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stderr.count("cannot write") == 1 and "audit.jsonl" in done.stderr
    lines = (api_folder() / "audit.jsonl").read_text().splitlines()
    whole = [json.loads(line)["number"] for line in lines if line.endswith("}")]
    assert whole == [1, 4, 5]


def test_an_audit_log_that_cannot_be_written_is_reported_once(
    client: Client, capfd: pytest.CaptureFixture[str]
) -> None:
    os.mkdir(api_folder() / "audit.jsonl")
    for _ in range(3):
        client.run({"code": "1"})
    assert capfd.readouterr().err.count("audit.jsonl") == 1


def test_metrics_only_rise(client: Client) -> None:
    def counters() -> dict[str, float]:
        lines = client.get("/metrics").text.splitlines()
        return {
            name: float(value)
            for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")
            if "_total" in name
        }

    before = counters()
    job = client.run({"code": "print(1)"})["id"]
    client.log(job)
    subprocess.run([STOKE, "rm", job], check=True, capture_output=True)
    after = counters()
    assert all(after[name] >= value for name, value in before.items())
    assert after['stoke_api_submissions_total{outcome="accepted"}'] == 1
    assert after["stoke_api_log_bytes_total"] == 2
    seen = [name for name in after if f"/{job}" in name]
    assert seen == []


def test_the_rest_of_the_program_loads_no_server() -> None:
    assert not loaded_by("import stoke.cli.main, stoke.jobs.submit, stoke.client.session") & {
        "starlette",
        "uvicorn",
    }
