"""Asks the Python packaging advisories about the locked releases of the services, with pip-audit.

python -m scripts.audit        # as `make audit`

Exit status: 0 none has a known vulnerability, or the advisories cannot be reached; 1 one has.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.support.script import run_script

ROOT = Path(__file__).parents[1]
SERVICES = ("client", "edge", "function", "ray")
TOOL = "pip-audit==2.10.1"
LIMIT_S = 120.0


def main() -> int:
    """Audits all services; returns the exit status."""
    uv = Path(sys.executable).with_name("uv")
    found = str(uv) if uv.exists() else shutil.which("uv")
    if found is None:
        print("The audit is skipped: uv, which brings pip-audit, is not installed (it comes with the extra 'lint').")
        return 0
    statuses = [told(service, *audited(found, service)) for service in SERVICES]
    return max(statuses)


def audited(uv: str, service: str) -> tuple[Mapping[str, Any] | None, str]:
    """Returns the report on a service; None, with the reason, where there is none."""
    path = ROOT / "scripts" / "requirements" / f"{service}.txt"
    command = [uv, "tool", "run", "--quiet", "--from", TOOL, "pip-audit", "--require-hashes", "--disable-pip"]
    try:
        ended = subprocess.run(
            [*command, "--format", "json", "--requirement", str(path)],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"no answer within {LIMIT_S:g} s"
    try:
        report: Mapping[str, Any] = json.loads(ended.stdout)
    except ValueError:
        return None, (ended.stderr.strip().splitlines() or ["it said nothing"])[-1][:200]
    return report, ""


def told(service: str, report: Mapping[str, Any] | None, why: str) -> int:
    """Prints what was found of a service; returns the exit status."""
    packages: Sequence[Mapping[str, Any]] = report["dependencies"] if report is not None else ()
    asked = [package for package in packages if "skip_reason" not in package]
    if not asked:
        why = why or "no package is known there"
        print(f"The audit of {service} is skipped: the advisories cannot be reached ({why}).")
        return 0
    bad = [(package, each) for package in asked for each in package.get("vulns", ())]
    for package, each in bad:
        mend = ", ".join(each.get("fix_versions", ())) or "no release yet"
        print(f"{service}: {package['name']} {package['version']} has {each['id']}; mended in {mend}")
    unknown = len(packages) - len(asked)
    if not bad:
        print(
            f"{service}: {len(asked)} packages without known vulnerabilities{f', {unknown} unknown' if unknown else ''}"
        )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(run_script("audit", main))
