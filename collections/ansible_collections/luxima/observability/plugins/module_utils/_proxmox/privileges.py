# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What a plan needs and the acting identity lacks. Asks the server once, and only for what it offers."""

from __future__ import annotations

from collections.abc import Iterator

from .model import Guest, Plan, Want
from .survey import Stock

ROOT = "root@pam"
#: Privileges that do as well.
_INSTEAD = {"VM.Config.Cloudinit": "VM.Config.Network"}


def lacking(
    stock: Stock, want: Want, have: Guest | None, source: Guest | None, planned: Plan, identity: str
) -> Iterator[str]:
    """One fault for everything that the server would refuse halfway; empty texts are none."""
    vmid = have.vmid if have else want.vmid
    paths = [f"/vms/{vmid}" if vmid else "/vms"]
    pool = want.options.get("pool") or (have.pool if have else "")
    if pool:
        paths.append(f"/pool/{pool}")
    for privilege in sorted(planned.privileges):
        where = ["/"] if privilege.startswith("Sys.") else paths
        fault = stock.privilege_fault(privilege, where)
        other = _INSTEAD.get(privilege, "")
        yield "" if fault and other and not stock.privilege_fault(other, where) else fault
    if have is None and source is not None:
        yield stock.privilege_fault("VM.Clone", [f"/vms/{source.vmid}"])
    for storage in sorted(planned.storages):
        yield stock.privilege_fault("Datastore.AllocateSpace", [f"/storage/{storage}"])
    node = have.node if have else want.node
    for bridge, tag in sorted(planned.bridges):
        yield stock.bridge_privilege_fault(node, bridge, tag)
    if planned.root_only and identity != ROOT:
        yield (
            f"{', '.join(planned.root_only)}: only {ROOT} himself may set that, with a password and not by a token, and "
            f"{identity} acts: give api_user {ROOT} and api_password without api_token_id, or leave it out and set it by hand"
        )
