"""Every hint in the source is followed by a test, or listed here with the reason why none can."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
TRAVELS = ROOT / "stoke/remote"
"""Sources that run inside a job or print its hints, which have tests of their own."""

# Where the hint is among the arguments. `Diagnosis` is argo's.
POSITION = {"RequestError": 2, "CheckResult": 3, "Diagnosis": 1}
NO_HINT = (
    "ProblemError",
    "JobFailedError",
    "RequirementError",
    "OSError",
    "NotRegularError",
    "PhaseError",
    "RunFailedError",
    "SlowPatternError",
)


def hints_in(source: str) -> Iterator[str]:
    """The templates of the hints in a module, `{}` in place of what is filled in."""
    tree = ast.parse(source)
    constants = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            for hint in _hints_of(node):
                yield from _templates(hint, constants)
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "hint":
            yield from _templates(node.value, constants)


def _hints_of(call: ast.Call) -> list[ast.expr]:
    name = getattr(call.func, "id", "")
    found = [keyword.value for keyword in call.keywords if keyword.arg == "hint"]
    if name in POSITION or (name.endswith("Error") and name not in NO_HINT):
        at = POSITION.get(name, 1)
        found += call.args[at : at + 1]
    return found


def _templates(hint: ast.expr, constants: dict[str, ast.expr]) -> Iterator[str]:
    """The literals that an expression may be; a hint that is only passed on has none."""
    if isinstance(hint, ast.IfExp):
        for branch in (hint.body, hint.orelse):
            yield from _templates(branch, constants)
    elif isinstance(hint, ast.BoolOp):
        for value in hint.values:
            yield from _templates(value, constants)
    elif isinstance(hint, ast.Name) and hint.id in constants:
        yield from _templates(constants[hint.id], constants)
    elif isinstance(hint, ast.Constant | ast.JoinedStr | ast.BinOp):
        text = _text(hint, constants)
        if any(letter.isalpha() for letter in text):
            yield text


def _text(hint: ast.expr, constants: dict[str, ast.expr]) -> str:
    if isinstance(hint, ast.Constant):
        return hint.value if isinstance(hint.value, str) else ""
    if isinstance(hint, ast.JoinedStr):
        return "".join(_text(part, constants) for part in hint.values)
    if isinstance(hint, ast.BinOp):
        return _text(hint.left, constants) + _text(hint.right, constants)
    if isinstance(hint, ast.FormattedValue):
        return _text(hint.value, constants)
    if isinstance(hint, ast.Name) and hint.id in constants:
        return _text(constants[hint.id], constants) or "{}"
    return "{}"


def templates_in_source() -> dict[str, str]:
    """Each template, and the module that it is in."""
    found: dict[str, str] = {}
    for top in ("backends", "stoke", "tui"):
        for path in sorted((ROOT / top).rglob("*.py")):
            if TRAVELS not in path.parents:
                for template in hints_in(path.read_text()):
                    found[template] = str(path.relative_to(ROOT))
    return found


def templates_in_tests() -> set[str]:
    """Every text in the test modules that take hints apart."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        source = path.read_text()
        if path != Path(__file__) and "from tests.hints import" in source:
            found |= {
                node.value
                for node in ast.walk(ast.parse(source))
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            }
    return found


NETWORK = "tests/cli/test_network.py"
FOLLOWED_ELSEWHERE = {
    "check its path; most index addresses end in /simple": NETWORK,
    "check the address and the port; addresses without TLS begin with http://": NETWORK,
    "correct {}, or unset it": NETWORK,
    "name a folder of your own: export {}=/some/folder": "tests/files/test_hints.py, with the rest",
    "export INDEX_LOGIN=USER:PASSWORD STOKE_INDEX__CREDENTIALS=env:INDEX_LOGIN": NETWORK,
    "export {}=http://USER:PASSWORD@{}": NETWORK,
    "unset index.proxy, and export {}=http://USER:PASSWORD@{}": NETWORK,
    "unset {}, or set it to an existing path": NETWORK,
    "put it aside and begin a new one: mv {} {}": "tests/history/test_unusable_database.py",
    "{}, or name another folder: export STOKE_STATE_DIR=/some/folder": "tests/files/test_hints.py",
    "ask for less: --cpu, --memory": "tests/cli/test_argo_policies.py",
    "wait for it, or stop it first": "tests/tui/test_race_screen.py",
    "did you mean {}? See: stoke workspace list": "tests/cli/test_workspaces.py",
    "run it again: stoke rerun": "tests/backends/argo/test_hints.py, with the job's name",
    "install Docker, or start it: sudo systemctl start docker; or run on this machine: "
    "-b local": "tests/backends/docker/test_hints.py",
}
"""Templates whose tests take the hint apart in their own way, or build the text of it."""

CLUSTER = "needs a cluster with this fault; tests/backends/argo has its condition"
RIGHTS = "needs a user who may grant rights; tests/backends/argo has its condition"
ENGINE = "needs an engine with this fault; tests/backends/docker/test_engine.py has its condition"
ELSEWHERE = "the fault and its remedy are outside of this machine"
NOT_FOLLOWED = {
    "call status with wait to see whether it ends; to end it at once: stop with now": "needs an "
    "engine that does not end a job after SIGKILL",
    "refer to a secret of the cluster, --secret NAME=secret:NAME/KEY; or have an administrator "
    "grant the right: stoke setup argo --apply": RIGHTS,
    "have an administrator grant the right: stoke setup argo --apply": RIGHTS,
    "ask for that right, then try: {}": RIGHTS,
    "let the service account create and patch task results and reach the API server: "
    "stoke setup argo --apply; or set argo.at_most_once = false": RIGHTS,
    "raise the limit: --timeout": "the runner ends a job before the pod's deadline passes",
    "update the template with the same argo.template_secrets: stoke setup argo": CLUSTER,
    "check that a controller runs and watches this namespace: kubectl get pods -A -l "
    "app=workflow-controller": CLUSTER,
    "check the network or VPN, then try: {} version": ELSEWHERE,
    "check the cluster: {} version": ELSEWHERE,
    "inspect the pod: {} describe pod {} -n {}": CLUSTER,
    "inspect it: {} get workflow {} -n {}": CLUSTER,
    "run a job: stoke run -b argo -c pass": CLUSTER,
    "see its log: kubectl logs {} -c {}": CLUSTER,
    "submit the sweep again": "needs two tasks whose names have the same hash",
    "build their environment first: stoke cache warm; or run them without it: --no-cache": CLUSTER,
    "Argo's configuration chooses that image, not the job: ask Argo's administrator to make it "
    "available to the nodes, or to name a copy of it (executor.image)": CLUSTER,
    "leave files out: --exclude GLOB, or use another backend: -b docker": "needs a project of 256 MiB; "
    "tests/backends/argo/test_pack_chunks.py has its condition",
    "write them to a claim that both jobs mount: --mount claim:NAME:/path:rw": "needs results of 256 "
    "MiB; tests/backends/argo/test_pack_chunks.py has its condition",
    "set notify.webhook to the final address": "only the server's owner knows it",
    "set notify.command to a program that exists, with its whole path": "names nothing that exists",
    "this cluster forbids root: set argo.restricted = true": CLUSTER,
    "a job of this scope has replaced a folder that all jobs of the scope mount; stop its jobs and "
    "make the cache anew: stoke cache clear -b argo --scope SCOPE": CLUSTER,
    "if a second run does harm, set argo.at_most_once = true": CLUSTER,
    "{}: kubectl delete node {}": CLUSTER,
    "{}; check the node: kubectl describe node {}": CLUSTER,
    "ask the engine's administrator to allow it": ENGINE,
    "see its last lines, or use another base: stoke setup image --base IMAGE": "an image with Python "
    "and Nix takes minutes to build, and a package mirror",
    "install the NVIDIA Container Toolkit where the engine runs, or leave out --gpu": "needs a GPU; "
    "tests/backends/docker/test_real_submission.py has its condition",
    "check it: docker info": "needs an engine that does not answer, and then it only shows this again",
    "free disk space: stoke cache ls, then stoke cache clear; or docker system df": ENGINE,
    "read the engine's log: sudo journalctl -u docker": "needs an engine that fails; a log is no fix",
    "check the network and the name server": "comes after 6 seconds, and names only where to look",
    "try again later, or ask its administrators": "names nothing to do on this machine",
    "stop it there": "needs a second machine with the same state folder",
    "kill them: kill -9 {}": "needs a job whose processes became another user's",
    "run stoke exec there": "needs a second machine with the same state folder",
    "see why: stoke show {}": "needs a job that ends while stoke exec looks for it",
    "try without it: {} exec -n {} {} -- true": "needs a proxy that refuses WebSockets",
    "reinstall stoke: its Python is gone": "breaks the installation that runs the tests",
    "choose an image with one: --image IMAGE": "needs an image without a shell; "
    "tests/contract/test_shell_contract.py has its condition",
    "check whether it is the job's: ps -fp {}; then kill it": "needs a job of an earlier version",
    "see whether its disk is broken or over a quota (dmesg, quota), or name another folder: "
    "export STOKE_STATE_DIR=/some/folder": "needs a disk that fails; a limit on "
    "the size of files would follow into the other folder",
    "check its state: stoke show {}": "comes only where SIGKILL does not end a job",
    "save it in the current format: jupyter nbconvert --to notebook --inplace NOTEBOOK.ipynb": "needs "
    "Jupyter; tests/request/test_notebook.py has its condition",
    'turn that off for jobs, such as with argo.annotations = { "sidecar.istio.io/inject" = "false" }, '
    "or have the containers end: workflows.argoproj.io/kill-cmd-NAME": "needs a service mesh; "
    "tests/backends/argo/test_check.py has its condition",
    "leave it out, or choose a backend that has them: -b docker": "every backend of ours has them",
    "choose another: -b docker": "every backend of ours has workspaces",
    "leave it out, or run in a container: -b docker": CLUSTER,
    'choose where it may keep them, for example: argo.cache = "claim"': CLUSTER,
    "try again later, or choose another name: --workspace NAME": CLUSTER,
    "choose another name: --workspace NAME": "needs a claim of the name of ours",
    "try again: stoke results {}": "needs a log that is cut each time",
    "make room there and run: stoke results {}": "needs a full disk; tests/cli/test_results.py follows "
    "the command",
    "copy it out, or copy its path: y": "needs a machine with a desktop; tests/tui has the keys",
    "this is a bug in stoke": "names nothing to do",
    "make room there; see how much is left: df -h {}; df -i {}": "needs a full disk; tests/test_system_"
    "limits.py has its condition",
    "delete files of yours there; see how much you may store: quota -s": "needs a quota",
    "allow larger files: ulimit -f unlimited": "needs a limit that a process may raise again",
    "name folders that you can write to: export STOKE_STATE_DIR=/some/folder "
    "STOKE_CACHE_DIR=/some/other": "comes where no other place in the code reports a read-only disk",
    "raise its limit: sudo sysctl fs.file-max=1000000": "changes the machine that runs the tests",
    "see what uses it: ps aux --sort=-rss | head": "names only where to look",
    "start it from a shell with a higher limit: ulimit -v unlimited": "needs a new shell",
    "install cron: sudo apt install cron": "changes the machine that runs the tests; "
    "tests/cli/test_schedules.py has its condition",
    "rename it, or name another state folder: export STOKE_STATE_DIR=/some/folder": "the path may be "
    "that of the program that runs the tests; tests/cli/test_schedules.py has its condition",
    "install them: uv tool install 'stoke-tui[api]'": "needs an installation without the extra",
    "install them: uv tool install 'stoke-tui[serve]'": "needs an installation without the extra",
    "see how many there are, and the limit: ps -eLf | wc -l; ulimit -u": "names only where to look",
}


def test_every_hint_is_followed_or_says_why_not() -> None:
    followed = templates_in_tests() | FOLLOWED_ELSEWHERE.keys()
    source = templates_in_source()
    open_ones = {one: at for one, at in source.items() if one not in followed | NOT_FOLLOWED.keys()}
    assert open_ones == {}, "follow them in a test, or list them here with the reason"


def test_the_lists_hold_only_hints_that_exist_and_are_not_followed() -> None:
    listed = {*FOLLOWED_ELSEWHERE, *NOT_FOLLOWED}
    assert listed - templates_in_source().keys() == set()
    assert NOT_FOLLOWED.keys() & (templates_in_tests() | FOLLOWED_ELSEWHERE.keys()) == set()


def test_a_new_hint_is_found_wherever_it_stands() -> None:
    source = """
AT = "see {name}"
MORE = f"then: {AT}"
raise EngineError("x", "plain")
raise RequestError("field", "why", f"a {b} and " + c)
CheckResult("x", False, "detail", MORE if y else error.hint or "other")
replace(state, hint="by keyword")
hint = "by name"
raise EngineError("x", error.hint)
raise OSError(1, "no hint")
"""
    assert sorted(hints_in(source)) == [
        "a {} and {}",
        "by keyword",
        "by name",
        "other",
        "plain",
        "then: see {name}",
    ]
