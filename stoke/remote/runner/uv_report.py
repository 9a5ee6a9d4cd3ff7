"""Understand what uv prints on stderr."""

from __future__ import annotations

import re

from stoke.remote.protocol import HintCode
from stoke.remote.runner.event_writer import beginning_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stoke.remote.protocol import Hint

# How uv begins its own lines; older versions draw a tree. uv indents the rest of an entry, and the
# output of builds and git.
UV_ENTRY = re.compile(
    r"(error: |warning: |hint: |  cause: |  Caused by: |"
    r"  (?:\u00d7|\u251c\u2500\u25b6|\u2570\u2500\u25b6) )(.*)"
)
# The line above another program's output, in an indented part.
UV_SECTION = re.compile(r"\s*(?:\[(?:stdout|stderr)\]|--- (?:stdout|stderr))$")
UV_UNREACHED = re.compile(
    r"(?:error sending request|request or response body error)(?: for url \((\S+)\))?$"
    r"|Failed to download distribution due to network timeout\."
)
UV_UNTRUSTED = "invalid peer certificate: UnknownIssuer"
UV_OFFLINE = "Packages were unavailable because the network was disabled"
UV_OS_ERROR = re.compile(r'(.*)\(os error (\d+)\)(?: at path "(.*)")?$')
# Warnings that mean nothing to a user of stoke.
UV_NOISE = re.compile(
    r"Failed to (?:hardlink|clone|reflink|symlink) files|.*\(no-op\)"
    # That file is empty if every package of a lockfile has its own index.
    r"|Requirements file `[^`]*requirements\.install` does not contain any dependencies"
)
# Sentences that name options, commands, files or variables of uv, which do not work in stoke.
UV_ONLY = re.compile(
    r"\buv\b|(?<![\w-])--[a-z]|\bUV_|\[tool\.|pyproject\.toml|\[\[|`(?:requires-python|tool\.uv)"
)


class UvReport:
    """uv's messages, apart from the output of the programs that it ran."""

    def __init__(self, text: str) -> None:
        self.causes: list[str] = []
        """The error, then its causes, each the cause of the one before."""
        self.hints: list[str] = []
        self.warnings: list[str] = []
        output: list[str] = []
        into = self.causes
        inside = foreign = False
        for line in text.split("\n"):
            entry = UV_ENTRY.match(line)
            if entry:
                kind = entry[1].strip()
                if kind in ("error:", "warning:", "hint:"):
                    kinds = {"error:": self.causes, "warning:": self.warnings, "hint:": self.hints}
                    into = kinds[kind]
                    into.append(entry[2])
                elif into is self.warnings and into:
                    into[-1] += ": " + entry[2]  # a warning's cause
                else:
                    into = self.causes
                    into.append(entry[2])
                inside, foreign = True, False
            elif line.strip() and not line.startswith("  "):
                inside = foreign = False
            elif inside and (foreign or UV_SECTION.match(line)):
                foreign = True
                output.append(line)
            elif inside and line.strip():
                into[-1] += "\n" + line.strip(" \u2502")
        indent = min([len(one) - len(one.lstrip(" ")) for one in output if one.strip()] or [0])
        self.output = "\n".join(one[indent:] for one in output).strip("\n")
        """What a build, git or ssh printed; it says nothing about the cache or the network of uv."""

    @property
    def summary(self) -> str:
        """Return the error and its causes, one per line, without the output of other programs."""
        title, *causes = self.causes or [""]
        if title.startswith("No solution found when ") and causes:
            return "no solution: " + "\n".join(causes)
        return "\n".join(self.causes)

    def unreached(self) -> tuple[str, str | None]:
        """Return (address, reason) if uv could not reach a server; else the reason is None."""
        for number, cause in enumerate(self.causes):
            found = UV_UNREACHED.match(cause)
            if found:
                why = ": ".join(self.causes[number:])
                return found[1] or "", re.sub(r" Try increasing UV_HTTP_TIMEOUT[^:]*", "", why)
        for hint in self.hints:
            if hint.startswith(UV_OFFLINE):
                return "", hint.split(".")[0]
        return "", None

    def failed_call(self) -> tuple[int | None, str | None]:
        """Return (errno, path) of the system call of uv that failed; None for what uv does not name."""
        for cause in reversed(self.causes):
            found = UV_OS_ERROR.match(cause)
            if found:
                named = found[3] or next(iter(re.findall(r"`(/[^`]*)`", found[1])), None)
                return int(found[2]), named
        return None, None

    def hint(self) -> Hint | None:
        """Return stoke's hint for the first of uv's hints that has one."""
        for code, found in map(uv_hint, self.hints):
            if code and found:
                return (code, *found.groups())
        return None

    def advice(self) -> str:
        """Return uv's other hints, without sentences that only help users of uv itself."""
        hints = []
        for hint in self.hints:
            if uv_hint(hint)[1] is None:
                sentences = re.split(r"(?<=\.)\s+", hint)
                hints.append(" ".join(one for one in sentences if not UV_ONLY.search(one)))
        return beginning_of("\n".join(filter(None, hints)), 500)


UV_HINTS = (
    # The beginning of a hint of uv, and the hint that stoke gives instead ("" for none). The groups
    # are its parameters.
    (r"Build failures usually indicate", ""),
    (
        r"(?:Only pre|Pre)-releases (?:of|are available for) `([^`]+)`.*?\(e\.g\., ([^)]+)\)",
        HintCode.PRE_RELEASE,
    ),
    (r"`([^`]+)` was requested with a pre-release marker", HintCode.PRE_LINE),
    (
        r"`([^`]+)` was found on (\S+?), but not at the requested version.*?\(e\.g\., ([^)]+)\)",
        HintCode.INDEX_ORDER,
    ),
)


def uv_hint(text: str) -> tuple[str, re.Match[str] | None]:
    """Return the entry of `UV_HINTS` for a hint of uv, as (code, match); ("", None) without one."""
    for beginning, code in UV_HINTS:
        found = re.match(beginning, text)
        if found:
            return code, found
    return "", None
