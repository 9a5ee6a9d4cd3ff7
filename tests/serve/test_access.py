"""Who gets to the screens: tokens, cookies, Host, Origin, and where the server listens."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
from websocket import WebSocketBadStatusException

from stoke.api.listening import listen
from stoke.api.tokens import TokenFile, api_folder
from stoke.config.model import ServeConfig
from stoke.serve.logins import IDLE_SECONDS, Logins
from stoke.serve.server import check_listening
from tests.api.served import make_token, problem
from tests.hints import command, is_hint, refused
from tests.serve.served import Browser, serving

STOKE = Path(sys.executable).with_name("stoke")
STATIC = Path(__file__).parents[2] / "stoke/serve/static"


def audit() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (api_folder() / "audit.jsonl").read_text().splitlines()]


def refusal(browser: Browser, **options: Any) -> int:
    """The status that the request for a WebSocket is refused with."""
    with pytest.raises(WebSocketBadStatusException) as caught:
        browser.connect(**options)
    return int(caught.value.status_code)


# --- the page -------------------------------------------------------------------------------------


def test_the_page_runs_only_scripts_of_the_server(secret: str) -> None:
    with serving() as address:
        answer = Browser(address).get("/")
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "<script>" not in answer.text and "onclick" not in answer.text
        for path in re.findall(r'(?:src|href)="(/[^"]+)"', answer.text):
            assert Browser(address).get(path).status_code == 200, path


@pytest.mark.parametrize(
    "path",
    ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd"],
)
def test_no_path_leads_out_of_the_static_files(secret: str, path: str) -> None:
    with serving() as address:
        request = requests.Request("GET", address).prepare()
        request.url = address + path  # As it is.
        answer = Browser(address).web.send(request, timeout=30)
        assert answer.status_code == 404 and "import" not in answer.text


def test_the_terminal_of_the_page_is_the_locked_one() -> None:
    folder = STATIC / "xterm"
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in map(str.split, lines)}
    files = {one.name for one in folder.iterdir()} - {"SHA256SUMS"}
    assert files == sums.keys()
    for name, digest in sums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


# --- the login ------------------------------------------------------------------------------------


def test_a_token_gets_a_cookie_that_scripts_cannot_read(secret: str) -> None:
    with serving() as address:
        browser = Browser(address)
        assert browser.get("/session").json() == {"token": None}
        answer = browser.log_in(secret)
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Secure" not in cookie
        assert secret not in cookie + answer.text
        assert str(next(iter(browser.web.cookies)).value) not in answer.text
        assert browser.get("/session").json() == {"token": "browser"}
        done = browser.web.post(f"{address}/logout", headers={"Origin": address}, timeout=30)
        assert done.status_code == 204 and browser.get("/session").json() == {"token": None}


def test_with_tls_the_cookie_travels_nowhere_else(secret: str, tmp_path: Path) -> None:
    pair, key = tmp_path / "pair.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", pair],
        check=True, capture_output=True,
    )  # fmt: skip
    with serving(certificate=str(pair), key=str(key)) as address:
        browser = Browser(address)
        browser.web.verify = str(pair)
        cookie = browser.log_in(secret).headers["Set-Cookie"]
        assert cookie.startswith("__Host-stoke-") and "Secure" in cookie and "Path=/" in cookie


@pytest.mark.parametrize(("right", "scopes"), [("read", []), ("submit", []), ("admin", ["team-a"])])
def test_only_a_token_that_may_do_everything_opens_the_screens(
    secret: str, right: str, scopes: list[str]
) -> None:
    less = make_token("less", right, *scopes)
    with serving() as address:
        browser = Browser(address)
        answer = browser.log_in(less)
        assert answer.status_code == 403 and "Set-Cookie" not in answer.headers
        hint = is_hint(problem(answer)["hint"], "make one: stoke api token add NAME --right admin")
        words = [word.replace("NAME", "mine") for word in command(hint)]
        made = subprocess.run([STOKE, *words], check=True, capture_output=True, text=True)
        assert browser.log_in(made.stdout.strip()).status_code == 200


def test_the_hint_of_a_wrong_token_makes_one_that_opens_the_screens(secret: str) -> None:
    with serving() as address:
        said = is_hint(
            problem(Browser(address).log_in("stoke_wrong"))["hint"],
            "make a token: {}; send it: Authorization: Bearer TOKEN",
        )
        made = subprocess.run([STOKE, *command(said)], check=True, capture_output=True, text=True)
        assert Browser(address).log_in(made.stdout.strip()).status_code == 200


def test_wrong_tokens_are_slowed_down(secret: str) -> None:
    with serving() as address:
        browser = Browser(address)
        seen = {browser.log_in(f"stoke_{number}").status_code for number in range(80)}
        assert seen == {401, 429}
        assert browser.log_in(secret).status_code == 200


def test_a_login_ends_with_its_token_and_when_it_is_not_used(own_home: Path) -> None:
    tokens, now = TokenFile(), 0.0
    found = tokens.find(make_token("browser", "admin"))
    assert found is not None
    logins = Logins(tokens, lambda: now)
    (first, key), (second, _) = logins.add(found), logins.add(found)
    login = logins.find(first)
    assert login is not None and login.has_key(key) and not login.has_key(first)
    now = IDLE_SECONDS - 1
    logins.touch(login)
    assert logins.find(second) is not None, "which is no use of it: pages connect on their own"
    now = IDLE_SECONDS + 1
    assert logins.find(second) is None and logins.find(first) is login
    tokens.remove("browser")
    make_token("browser", "admin")
    assert logins.find(first) is None and not logins.is_valid(login)


# --- pages of other sites -------------------------------------------------------------------------


def test_foreign_pages_and_names_are_refused(secret: str) -> None:
    with serving() as address:
        browser = Browser(address, secret)
        for origin in ("https://evil.example", "null", "http://127.0.0.1:1", "http://["):
            assert browser.log_in(secret, Origin=origin).status_code == 403
            assert refusal(browser, origin=origin) == 403
        assert refusal(browser, origin=None) == 403
        assert browser.get("/", Host="evil.example").status_code == 421
        evil = {"host": "evil.example", "origin": "http://evil.example"}
        assert refusal(browser, **evil) == 403
        cross = {"Sec-Fetch-Site": "cross-site"}
        assert browser.get("/session", **cross).status_code == 403
        assert browser.get("/", **cross, **{"Sec-Fetch-Dest": "iframe"}).status_code == 403
        assert browser.get("/", **cross, **{"Sec-Fetch-Dest": "document"}).status_code == 200
        browser.connect().close()
    refused_ = [one for one in audit() if one.get("method") == "WEBSOCKET"]
    assert {one["status"] for one in refused_} == {403, 421}


def test_a_listed_origin_is_served(secret: str) -> None:
    listed = {"hosts": ("jobs.example.org",), "origins": ("https://jobs.example.org",)}
    with serving(**listed) as address:
        browser = Browser(address, secret)
        headers = {"Host": "jobs.example.org", "Origin": "https://jobs.example.org"}
        assert browser.log_in(secret, **headers).status_code == 200
        browser.connect(origin="https://jobs.example.org").close()


def test_a_token_in_an_address_is_refused(secret: str) -> None:
    with serving() as address:
        assert Browser(address).get(f"/?token={secret}").status_code == 400
        assert Browser(address).get(f"/?x={secret}").status_code == 400
    assert secret not in (api_folder() / "audit.jsonl").read_text()


def test_without_a_cookie_nothing_connects(secret: str) -> None:
    with serving() as address:
        assert refusal(Browser(address)) == 403
        assert (
            refusal(Browser(address), Cookie="stoke-1=x", Authorization=f"Bearer {secret}") == 403
        )


# --- where it listens -----------------------------------------------------------------------------


def test_the_server_needs_a_token_that_opens_the_screens(own_home: Path) -> None:
    make_token("ci", "submit")
    said = refused(
        lambda: check_listening(ServeConfig(), without_tls=False),
        "make one: stoke api token add browser --right admin",
    )
    subprocess.run([STOKE, *command(said)], check=True, capture_output=True)
    check_listening(ServeConfig(), without_tls=False)


def test_other_machines_are_served_with_tls_or_an_explicit_option(secret: str) -> None:
    config = ServeConfig(host="0.0.0.0")
    said = refused(
        lambda: check_listening(config, without_tls=False),
        "name a certificate: stoke {} --certificate FILE --key FILE; or have a proxy do TLS: "
        "stoke {} --without-tls",
    )
    assert command(said) == ["serve", "--without-tls"]
    check_listening(config, without_tls=True)


def test_a_port_that_is_taken_is_named(secret: str) -> None:
    with serving() as address:
        taken = ServeConfig(port=int(address.rpartition(":")[2]))
        said = refused(lambda: listen(taken, "serve"), "choose another port: stoke {} --port 0")
        assert command(said) == ["serve", "--port", "0"]
