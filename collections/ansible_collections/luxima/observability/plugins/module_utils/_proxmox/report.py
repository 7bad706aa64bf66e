# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What a call did to its objects, and how a module ends with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.basic import missing_required_lib

from .client import IMPORT_ERROR
from .errors import ProxmoxError


@dataclass
class Report:
    """The module's answer; ``objects`` by name."""

    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    diff: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    #: How many objects failed, when one line tells of several.
    failed: int = 0

    @property
    def changed(self) -> bool:
        return any(entry["changed"] for entry in self.objects.values())

    def result(self, key: str) -> dict[str, Any]:
        return {"changed": self.changed, "diff": self.diff, key: self.objects}


def execute(module: Any, run: Callable[[dict[str, Any], bool], Report], key: str, noun: str = "") -> None:
    """What every module here does: run, and end with the report; `key` names its objects in the result, `noun` in a failure."""
    if IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("proxmoxer, requests"), exception=IMPORT_ERROR)
    try:
        report = run(module.params, module.check_mode)
    except ProxmoxError as error:
        module.fail_json(msg=str(error), **{key: {}})
    for warning in report.warnings:
        module.warn(warning)
    if report.failures:
        listing = "\n".join(f"- {failure}" for failure in report.failures)
        total = " ".join(filter(None, [str(len(report.objects)), noun]))
        failed = report.failed or len(report.failures)
        module.fail_json(msg=f"{failed} of {total} failed:\n{listing}", **report.result(key))
    module.exit_json(**report.result(key))
