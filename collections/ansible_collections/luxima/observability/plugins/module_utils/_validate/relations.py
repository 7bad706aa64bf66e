# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What variables ask of each other: patches and the policy, probes and modules, jobs and names, one switch with two ends. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .._config import limits, overlay
from .._retention import durations
from .faults import Fault
from .schema import Role

Values = Mapping[str, Mapping[str, Any]]
_FLAG = re.compile(r"(?<![\w-])--?[a-z][a-z0-9_.-]*[a-z0-9]")


@dataclass(frozen=True)
class Site:
    """Groups, the evaluated variables of every host, their variables as written, the roles, and the components of this run."""

    groups: Mapping[str, list[str]]
    values: Values
    raw: Values
    roles: Mapping[str, Role]
    chosen: list[str]

    def hosts(self, group: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The hosts of a component of this run, with their evaluated variables."""
        for host in self.groups.get(group, []) if group in self.chosen else []:
            yield host, self.values.get(host, {})


def faults(site: Site) -> list[Fault]:
    found: list[Fault] = []
    for check in (_patches, _arguments, _tenants, _probes, _jobs, _remote_write, _storage, _keys, _paths):
        found += check(site)
    return found


def risks(site: Site) -> list[Fault]:
    """Told, not refused: the platform works, but not as the policy makes one believe."""
    return [*_bounds(site)]


def _patches(site: Site) -> Iterator[Fault]:
    for role in site.roles.values():
        for host, have in site.hosts(role.name):
            written = {**role.defaults, **site.raw.get(host, {}), **role.private}
            patch = have.get(f"{role.name}_config")
            for where, told in overlay.of_role(role.name, written, patch):
                yield Fault(where, host, told)


def _arguments(site: Site) -> Iterator[Fault]:
    """Most servers refuse a flag that is given twice; the others take the last."""
    for role in site.roles.values():
        own = set(_FLAG.findall(str(role.private.get(f"__{role.name}_arguments", ""))))
        for host, have in site.hosts(role.name):
            for word in have.get(f"{role.name}_arguments") or []:
                flag = str(word).partition("=")[0].replace("--no-", "--", 1)
                if flag in own:
                    text = f"{flag} is given by the role already; set the variable that it follows from"
                    yield Fault(f"{role.name}_arguments", host, text)


def _tenants(site: Site) -> Iterator[Fault]:
    for name in ("loki", "tempo"):
        for host, have in site.hosts(name):
            for where, told in limits.periods(name, have.get(f"{name}_tenant_limits")):
                yield Fault(where, host, told)


def _probes(site: Site) -> Iterator[Fault]:
    role = site.roles.get("blackbox_exporter")
    shipped = _modules(role.private.get("__blackbox_exporter_config_base")) if role else set()
    exporters = [site.values.get(host, {}) for host in site.groups.get("blackbox_exporter", [])]
    own = [shipped | _modules(have.get("blackbox_exporter_config")) for have in exporters]
    known = set.intersection(*own) if own else shipped
    for host, have in [*site.hosts("prometheus"), *site.hosts("blackbox_exporter")]:
        for index, probe in enumerate(have.get("platform_probes") or []):
            where = f"platform_probes[{index}]"
            if not isinstance(probe, Mapping) or not probe.get("url"):
                yield Fault(where, host, "names no url; write {url: https://…, module: http_2xx}")
                continue
            module = str(probe.get("module", "http_2xx"))
            if module not in known:
                text = f"no blackbox exporter has a module {module!r}; known are {', '.join(sorted(known))}, further ones go into blackbox_exporter_config.modules"
                yield Fault(where, host, text)


def _modules(config: Any) -> set[str]:
    modules = config.get("modules") if isinstance(config, Mapping) else None
    return set(map(str, modules)) if isinstance(modules, Mapping) else set()


def _jobs(site: Site) -> Iterator[Fault]:
    for host, have in site.hosts("prometheus"):
        taken = {name: "the platform" for name in have.get("platform_metrics") or {} if site.groups.get(name)}
        if have.get("platform_probes"):
            taken["probe"] = "the platform"
        config = have.get("prometheus_config")
        added = config.get("+scrape_configs") if isinstance(config, Mapping) else None
        for variable, jobs in (
            ("platform_scrape_jobs", have.get("platform_scrape_jobs")),
            ("prometheus_config.+scrape_configs", added),
        ):
            for index, job in enumerate(jobs or []):
                where = f"{variable}[{index}]"
                name = str(job.get("job_name") or "") if isinstance(job, Mapping) else ""
                if not name:
                    yield Fault(where, host, "has no job_name")
                elif name in taken:
                    yield Fault(where, host, f"job_name {name!r} is taken by {taken[name]}; choose another")
                taken.setdefault(name, where)


def _remote_write(site: Site) -> Iterator[Fault]:
    """Who makes numbers of traces needs somebody who takes them."""
    servers = [
        (host, site.values.get(host, {}))
        for host in site.groups.get("prometheus", [])
        if "prometheus_url" in site.values.get(host, {})
    ]
    for host, have in site.hosts("tempo"):
        if not have.get("tempo_metrics_generator_enabled"):
            continue
        urls = [str(one) for one in have.get("tempo_remote_write_urls") or []]
        if not urls:
            text = "is empty, but tempo_metrics_generator_enabled is true; name a server that takes remote writes, or put a host into group prometheus"
            yield Fault("tempo_remote_write_urls", host, text)
        for other, its in servers:
            if any(one.startswith(str(its["prometheus_url"])) for one in urls) and not its.get(
                "prometheus_remote_write_receiver", True
            ):
                text = f"is false, but Tempo on {host} writes there (tempo_metrics_generator_enabled); leave it out, or name another server in tempo_remote_write_urls"
                yield Fault("prometheus_remote_write_receiver", other, text)


def _storage(site: Site) -> Iterator[Fault]:
    for name in ("loki", "tempo"):
        for host, have in site.hosts(name):
            if have.get(f"{name}_s3_encryption") == "aws:kms" and not have.get(f"{name}_s3_kms_key"):
                text = f"is empty, but {name}_s3_encryption is aws:kms; name the key"
                yield Fault(f"{name}_s3_kms_key", host, text)


def _keys(site: Site) -> Iterator[Fault]:
    """MinIO's own bounds of what it makes for a consumer."""
    for host, have in site.hosts("minio"):
        for one in have.get("platform_buckets") or []:
            consumer = one.get("consumer") or one.get("name") if isinstance(one, Mapping) else ""
            for key, least, most in (("access_key", 3, 20), ("secret_key", 8, 40)):
                text = str(one.get(key) or "") if consumer else ""
                if text and not least <= len(text) <= most:
                    told = f"of {consumer} has {len(text)} characters; MinIO takes {least} to {most}"
                    yield Fault(f"platform_buckets.{key}", host, told)


def _paths(site: Site) -> Iterator[Fault]:
    """Tempo serves only its queries below `http_api_prefix`, and below the other setting nothing but metrics."""
    for host, have in site.hosts("tempo"):
        config = have.get("tempo_config")
        if not isinstance(config, Mapping):
            continue
        server = config.get("server")
        prefixes = {
            "tempo_config.http_api_prefix": config.get("http_api_prefix"),
            "tempo_config.server.http_path_prefix": isinstance(server, Mapping)
            and server.get("http_path_prefix"),
        }
        for where, prefix in prefixes.items():
            if prefix:
                text = "Tempo does not serve its health and its metrics below a path; let the proxy take the path away, and leave this out"
                yield Fault(where, host, text)


def _bounds(site: Site) -> Iterator[Fault]:
    for name, variable, store in (
        ("loki", "loki_max_query_length", "loki"),
        ("tempo", "tempo_max_search_duration", "tempo"),
    ):
        for host, have in site.hosts(name):
            plan = have.get("platform_retention_plan")
            if not isinstance(plan, Mapping):
                continue
            least = _seconds(plan[store]["longest"]) - durations.DAY
            bound = _seconds(have.get(variable))
            # 0 is no bound.
            if bound and bound < least:
                text = f"is shorter than what is kept ({durations.days(least)}); older data is found by narrower queries only"
                yield Fault(variable, host, text)
            oldest = _seconds(have.get("loki_reject_older_than")) if name == "loki" else 0
            for label, one in plan["classes"].items() if oldest else ():
                kept = _seconds(one["stores"].get("loki"))
                if kept and kept < oldest:
                    text = f"takes lines that are older than class {label} is kept ({durations.days(kept)}); they are deleted soon after"
                    yield Fault("loki_reject_older_than", host, text)


def _seconds(text: Any) -> int:
    try:
        return durations.parse(str(text))
    except ValueError:
        return 0
