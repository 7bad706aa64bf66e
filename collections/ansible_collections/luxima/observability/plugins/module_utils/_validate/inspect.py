# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The whole inspection of an inventory. Reads what it is given, asks nobody."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ansible.errors import AnsibleError, AnsibleUndefinedVariable
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.parsing.convert_bool import boolean

from .._artifacts import lock
from .._artifacts.store import default_lock_file
from .._component.manifest import plain
from .._retention import policy as retention
from .._secrets import examples
from . import additions, content, guests, hosts, images, logs, relations, schema, scraping
from . import groups as grouping
from .faults import Fault
from .schema import Role

# What guests are described by; evaluated for guests only.
_GUEST = ("guest_", "platform_guest")
_STORES = ("prometheus", "loki", "tempo", "minio")
_CHANNEL: dict[str, dict[str, Any]] = {
    "type": {
        "type": "str",
        "required": True,
        "choices": ["slack", "telegram", "email", "pagerduty", "webhook"],
    },
    "target": {"type": "str"},
    "severities": {
        "type": "list",
        "elements": "str",
        "choices": ["critical", "high", "warning", "notice", "info"],
    },
    "categories": {"type": "list", "elements": "str"},
    "alerts": {"type": "list", "elements": "str"},
}
_INCOHERENT = "the retention policy is incoherent"
_FOREIGN = re.compile(r"\{\{-?\s*[$.]")
_UNSAFE = "text with braces of another language needs !unsafe before it, or a file of its own read by lookup('ansible.builtin.file', ...)"

Template = Callable[[dict[str, Any], Any], Any]


@dataclass
class Inventory:
    """What is inspected: groups, the raw variables of each host, and how a template is evaluated for its owner."""

    groups: dict[str, list[str]]
    variables: Mapping[str, dict[str, Any]]
    template: Template
    roles: dict[str, Role]
    known: set[str]
    run_tags: list[str] = field(default_factory=list)
    skip_tags: list[str] = field(default_factory=list)
    # Only what somebody wrote, and what must be there: a default needs no look.
    own_only: bool = False


@dataclass
class Findings:
    """Faults stop the run; risks are told; examples are secrets of the shipped inventories that are in use."""

    faults: list[Fault] = field(default_factory=list)
    risks: list[Fault] = field(default_factory=list)
    examples: set[str] = field(default_factory=set)


def inspect(inventory: Inventory) -> Findings:
    """Every fault, in the order people repair them: tags, groups, variables, guests, policies."""
    found = Findings()
    first = next(iter(inventory.variables.values()), {})
    components = list(inventory.roles["platform"].defaults["platform_components"])
    if "platform_components" not in first:
        found.faults.append(
            Fault(
                "platform_components",
                "",
                "the inventory has no source luxima.observability.platform; add 00-platform.yml with `plugin: luxima.observability.platform` beside hosts.yml",
            )
        )
        return found
    chosen = grouping.selected(components, inventory.run_tags)
    found.faults += grouping.check_tags(components, inventory.run_tags, inventory.skip_tags)
    found.faults += [
        Fault(f"role {role.name}", "", f"its argument spec cannot be read: {role.unreadable}")
        for role in inventory.roles.values()
        if role.unreadable
    ]
    values: dict[str, dict[str, Any]] = {}
    for host, raw in inventory.variables.items():
        values[host] = _host(inventory, host, raw, chosen, components, found)
    requirements = {host: have.get("platform_requirements") or {} for host, have in values.items()}
    found.faults += grouping.check_requirements(inventory.groups, requirements, chosen, inventory.known)
    single: list[str] = next(
        (have["platform_single_host"] for have in values.values() if "platform_single_host" in have), []
    )
    found.faults += grouping.check_single(inventory.groups, single, chosen)
    reachable = [
        host
        for host, raw in inventory.variables.items()
        if {"ansible_host", "ansible_connection"} & raw.keys()
    ]
    found.faults += grouping.check_members(inventory.groups, chosen, reachable)
    found.faults += guests.check(
        values, [*inventory.groups.get("guests", []), *inventory.groups.get("guests_off", [])]
    )
    found.faults += guests.still_expected(values, inventory.groups, components)
    site = relations.Site(inventory.groups, values, inventory.variables, inventory.roles, chosen)
    found.faults += relations.faults(site)
    found.risks += relations.risks(site)
    incoherent = _retention(inventory, values)
    # What only follows from those is not told beside them.
    found.faults = [one for one in found.faults if not incoherent or one.text != _INCOHERENT] + incoherent
    found.risks += content.untold(values)
    for host, having in values.items():
        found.faults += content.check(host, having)
    found.faults += logs.check(values, inventory.groups.get("promtail", []))
    ports = [name for name in inventory.roles["platform"].defaults if name.endswith("_port")]
    found.faults += hosts.check(values, inventory.variables, inventory.groups, components, ports)
    found.faults += scraping.check(values, inventory.groups.get("prometheus", []))
    found.risks += guests.risks(values, inventory.groups.get("guests", []))
    refused, risky = images.check(_image_jobs(inventory), values, inventory.groups)
    found.faults += refused
    found.risks += risky
    for host in inventory.groups.get("backup", []):
        _copies(host, values.get(host, {}), found)
    for host in inventory.groups.get("prometheus", []):
        _deletes(host, values.get(host, {}), found)
    found.faults += _public(values, found.examples)
    if chosen == components:
        found.faults += _hypervisor(inventory)
    return found


def inspect_component(inventory: Inventory, host: str, component: str) -> Findings:
    """The same for one component of one host, as its transaction asks: its role's variables and the platform's that are set."""
    found = Findings()
    one = replace(inventory, groups={component: [host]}, known=set(inventory.variables[host]), own_only=True)
    values = _host(one, host, inventory.variables[host], [component], [component], found)
    if not values.get("platform_render_dir"):
        # Files that are only written are no use of a secret.
        found.faults += _public({host: values}, found.examples)
    return found


def _image_jobs(inventory: Inventory) -> Any:
    """The hypervisor's backup jobs; what cannot be evaluated is told when they are made."""
    for host in inventory.groups.get("guests", []):
        raw = inventory.variables.get(host, {})
        try:
            return inventory.template(raw, raw.get(images.VARIABLE) or [])
        except AnsibleError:
            return []
    return []


def _public(values: Mapping[str, Mapping[str, Any]], names: set[str]) -> list[Fault]:
    """Secrets that everybody knows, where the environment is protected; elsewhere they are a warning."""
    if not any(boolean(having.get("platform_protected", False), strict=False) for having in values.values()):
        return []
    text = (
        "is the shipped example, which everybody can read, and the environment is protected; write your own with "
        "playbooks/secrets.yml -e platform_secrets_replace=true; one that somebody else issues is given there with -e <name>=<value>"
    )
    return [Fault(name, "", text) for name in sorted(names)]


def _host(
    inventory: Inventory,
    host: str,
    raw: dict[str, Any],
    chosen: list[str],
    components: list[str],
    found: Findings,
) -> dict[str, Any]:
    """The evaluated variables of one host; what could not be evaluated is a fault and left out."""
    is_guest = any(host in inventory.groups.get(group, []) for group in ("guests", "guests_off"))
    roles = ["platform", *(name for name in chosen if host in inventory.groups.get(name, []))]
    values: dict[str, Any] = {}
    faults = schema.unknown(raw, inventory.known, components, host)
    derived: list[Fault] = []
    for role in (inventory.roles[name] for name in roles if name in inventory.roles):
        variables = {**role.defaults, **raw}
        for name in sorted(role.names):
            if name.startswith(_GUEST) and not is_guest:
                continue
            option = role.options.get(name, {})
            if name not in variables:
                if option.get("required"):
                    faults.append(_missing(role, name, host))
                continue
            own = name not in role.defaults or variables[name] != role.defaults[name]
            if inventory.own_only and not own and not option.get("required"):
                continue
            try:
                value = inventory.template(variables, variables[name])
            except AnsibleError as error:
                # What only follows from another fault is not told, and of a shared default only its users speak.
                fault = Fault(name, host, explain(error, variables[name]))
                if own:
                    faults.append(fault)
                elif role.name != "platform":
                    derived.append(fault)
                continue
            values[name] = value
            if value is None and (empty := schema.nothing(name, option, host)):
                faults.append(empty)
                del values[name]
            elif option.get("required") and value in ("", None):
                faults.append(_missing(role, name, host))
            elif option:
                faults += schema.check_value(name, option, value, host, role.is_secret(name))
            if (
                own
                and role.holds_secret(name)
                and (examples.within(value) or examples.opened_by_all(variables[name]))
            ):
                found.examples.add(name)
    for role in (role for role in inventory.roles.values() if role.name not in roles):
        blank = [name for name in role.options if name in raw and raw[name] is None]
        faults += [empty for name in blank if (empty := schema.nothing(name, role.options[name], host))]
    faults += _additions(inventory, host, raw, values)
    faults += _open_mappings(values, host)
    faults += hosts.memory(host, values)
    found.faults += faults or derived
    return values


def _additions(inventory: Inventory, host: str, raw: dict[str, Any], values: dict[str, Any]) -> list[Fault]:
    """Variables that add to others: of the same type, and joined in what is inspected further."""
    faults: list[Fault] = []
    for role in inventory.roles.values():
        for base in schema.bases(inventory.known) & role.options.keys():
            more = [name for name in additions.names_of(base, raw) if name != base]
            given = {base: values[base]} if base in values else {}
            for name in more:
                try:
                    given[name] = inventory.template({**role.defaults, **raw}, raw[name])
                except AnsibleError as error:
                    faults.append(Fault(name, host, explain(error, raw[name])))
                    continue
                faults += schema.check_value(name, role.options[base], given[name], host, False)
            try:
                values.update({base: additions.joined(base, given)} if more else {})
            except additions.Clash as error:
                variable, _, text = str(error).partition(": ")
                faults.append(Fault(variable, host, text))
    return faults


def _missing(role: Role, name: str, host: str) -> Fault:
    if role.is_secret(name):
        way_out = "a secret: write it to group_vars/all/secrets.yml, or run playbooks/secrets.yml for this inventory"
    else:
        way_out = "set it in group_vars or at the host"
    return Fault(name, host, f"is required by role {role.name} and has no value; {way_out}")


def _open_mappings(values: Mapping[str, Any], host: str) -> list[Fault]:
    faults: list[Fault] = []
    thresholds, known = values.get("platform_thresholds"), values.get("platform_thresholds_default")
    if isinstance(thresholds, Mapping) and isinstance(known, Mapping):
        faults += schema.unlike(thresholds, known, "platform_thresholds", host)
    channels = values.get("platform_channels")
    if isinstance(channels, Mapping):
        for name, channel in channels.items():
            where = f"platform_channels.{name}"
            if not isinstance(channel, Mapping):
                faults.append(Fault(where, host, f"must be a mapping with {', '.join(_CHANNEL)}"))
                continue
            messages = ArgumentSpecValidator(_CHANNEL).validate(plain(channel)).error_messages
            faults += [Fault(where, host, message) for message in messages]
            if channel.get("type") == "pagerduty" and not values.get("platform_pages"):
                pages = "pages people, and platform_pages is false here; set it to true or remove the channel"
                faults.append(Fault(where, host, pages))
            if not channel.keys() & {"severities", "categories", "alerts"}:
                faults.append(
                    Fault(where, host, "nothing is sent there; say severities, categories or alerts")
                )
    return faults


def explain(error: AnsibleError, source: Any) -> str:
    """One sentence for a template that failed, with the fix when its braces are of another language."""
    causes: list[BaseException] = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    text = str(getattr(error, "message", error)).split("\n")[0].strip()
    innermost = str(getattr(causes[-1], "message", causes[-1])).split("\n")[0].strip()
    if innermost and innermost not in text:
        text = f"{text} {innermost}"
    if any(isinstance(cause, retention.IncoherentPolicy) for cause in causes):
        return _INCOHERENT
    if any("yntax error" in str(cause) for cause in causes) or _FOREIGN.search(str(source)):
        return f"{text}; {_UNSAFE}"
    if any(isinstance(cause, AnsibleUndefinedVariable) for cause in causes):
        return f"{text}; define what it refers to, or give the reference a default"
    return text


def _retention(inventory: Inventory, values: Mapping[str, Mapping[str, Any]]) -> list[Fault]:
    hosts = [host for group in _STORES for host in inventory.groups.get(group, [])] or list(values)[:1]
    faults = []
    for host in dict.fromkeys(hosts):
        have = values.get(host, {})
        # Evaluated values only; a fault of their own is told elsewhere.
        if "platform_retention" not in have:
            continue
        options = retention.Options(
            deletion_delay=str(have.get("platform_retention_deletion_delay", "2h")),
            metrics_size=str(have.get("platform_retention_metrics_size", "")),
            lifecycles=have.get("platform_retention_lifecycles") or {},
            stream_labels=tuple(have.get("platform_log_labels") or retention.STREAM_LABELS),
            loki_multi_tenant=bool(have.get("loki_auth_enabled")),
            tempo_multi_tenant=bool(have.get("tempo_multitenancy_enabled")),
            tables=have.get("platform_retention_tables") or {},
            prometheus_version=_version(have),
            **_room(inventory, host, have),
        )
        for problem in retention.problems(
            have["platform_retention"],
            have.get("platform_retention_overrides"),
            have.get("platform_retention_tenants"),
            options,
        ):
            variable, separator, text = problem.partition(": ")
            named = separator and re.fullmatch(r"platform_[\w.\-]+", variable)
            faults.append(
                Fault(variable if named else "platform_retention", host, text if named else problem)
            )
    return faults


def _deletes(host: str, have: Mapping[str, Any], found: Findings) -> None:
    """A Prometheus that deletes series for whoever reaches its port."""
    local = str(have.get("prometheus_listen_address", "")) in ("127.0.0.1", "::1", "localhost")
    if have.get("prometheus_admin_api") and not local and have.get("guest_firewall") != "closed":
        text = "whoever reaches the port may delete series; close the guest's firewall (guest_firewall: closed), let Prometheus listen on 127.0.0.1, or leave the interface closed: copies then lack the newest hours"
        found.risks.append(Fault("prometheus_admin_api", host, text))


def _copies(host: str, have: Mapping[str, Any], found: Findings) -> None:
    """Copies that nothing says the period of, and those that are lost with the guest they are taken of."""
    # Only what could be evaluated.
    policy, overrides = have.get("platform_retention"), have.get("platform_retention_overrides")
    kept = retention.kept_in("minio", policy, overrides) if policy else set(retention.COPIES)
    own = []
    for job in have.get("backup_jobs") or []:
        name = next(name for name, copied in retention.COPIES.items() if job in copied)
        if name not in kept:
            text = f"says how long copies of {job} are kept, which group backup takes; the class is missing, or has no store minio"
            found.faults.append(Fault(f"platform_retention.{name}", host, text))
        variable = "backup_minio_target" if job == "minio" else "backup_target"
        target = have.get(variable)
        if isinstance(target, Mapping) and target.get("directory"):
            own.append((variable, job, str(target["directory"])))
    if have.get("backup_own_host_accepted"):
        return
    for variable, job, folder in own:
        text = (
            f"copies of {job} lie in {folder} of the same guest and are lost with it; "
            + ("add a second host to group minio, " if job == "minio" else "")
            + "name a server elsewhere, or, where the loss is accepted or the folder is another machine's disk, set backup_own_host_accepted: true"
        )
        found.risks.append(Fault(variable, host, text))


def _room(inventory: Inventory, host: str, have: Mapping[str, Any]) -> dict[str, Any]:
    """What a host of Prometheus gives to its blocks: a root disk, unless a disk of their own is mounted."""
    if host not in inventory.groups.get("prometheus", []) or host not in inventory.groups.get("guests", []):
        return {}
    own = [disk for disk in have.get("guest_disks") or [] if isinstance(disk, Mapping) and disk.get("path")]
    return {} if own else {"metrics_disk_gb": int(have.get("guest_disk_gb") or 0)}


def _version(have: Mapping[str, Any]) -> str:
    """The version of Prometheus that is installed; empty when the lock cannot say, which is told elsewhere."""
    try:
        entry = lock.load(str(have.get("platform_lock_file") or default_lock_file())).entry("prometheus")
    except lock.LockError:
        return ""
    source = entry.release or entry.build
    return str(source.version) if source else ""


def _hypervisor(inventory: Inventory) -> list[Fault]:
    """Guests need an API; whether it answers is provisioning's business."""
    hosts = [*inventory.groups.get("guests", []), *inventory.groups.get("guests_off", [])]
    if not hosts:
        return []
    raw = inventory.variables[hosts[0]]
    faults = []
    if not raw.get("proxmox_api_host"):
        faults.append(
            Fault("proxmox_api_host", "", "is empty, but group guests has hosts; name the Proxmox VE API")
        )
    if not raw.get("proxmox_api_password") and not (
        raw.get("proxmox_api_token_id") and raw.get("proxmox_api_token_secret")
    ):
        faults.append(
            Fault(
                "proxmox_api_token_secret",
                "",
                "no way to log in to Proxmox VE; set proxmox_api_token_id and proxmox_api_token_secret, or proxmox_api_password",
            )
        )
    return faults
