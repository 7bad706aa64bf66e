# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Scrape jobs of an inventory: a key that Prometheus does not know is found before it refuses the whole configuration."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from .faults import Fault

# Of scrape_config; every *_sd_configs beside them.
_JOB = frozenset(
    [
        "job_name",
        "scrape_interval",
        "scrape_timeout",
        "scrape_protocols",
        "scrape_fallback_protocol",
        "scrape_native_histograms",
        "always_scrape_classic_histograms",
        "scrape_classic_histograms",
        "convert_classic_histograms_to_nhcb",
        "metrics_path",
        "honor_labels",
        "honor_timestamps",
        "track_timestamps_staleness",
        "scheme",
        "params",
        "enable_compression",
        "enable_http2",
        "basic_auth",
        "authorization",
        "oauth2",
        "follow_redirects",
        "tls_config",
        "proxy_url",
        "no_proxy",
        "proxy_from_environment",
        "proxy_connect_header",
        "http_headers",
        "static_configs",
        "relabel_configs",
        "metric_relabel_configs",
        "body_size_limit",
        "sample_limit",
        "label_limit",
        "label_name_length_limit",
        "label_value_length_limit",
        "target_limit",
        "keep_dropped_targets",
        "native_histogram_bucket_limit",
        "native_histogram_min_bucket_factor",
        "metric_name_validation_scheme",
        "metric_name_escaping_scheme",
        "extra_scrape_metrics",
    ]
)
_DISCOVERY = frozenset(
    f"{name}_sd_configs"
    for name in [
        "azure",
        "consul",
        "digitalocean",
        "dns",
        "docker",
        "dockerswarm",
        "ec2",
        "eureka",
        "file",
        "gce",
        "hetzner",
        "http",
        "ionos",
        "kubernetes",
        "kuma",
        "lightsail",
        "linode",
        "marathon",
        "nerve",
        "nomad",
        "openstack",
        "ovhcloud",
        "puppetdb",
        "scaleway",
        "serverset",
        "stackit",
        "triton",
        "uyuni",
        "vultr",
    ]
)
_STATIC = frozenset({"targets", "labels"})


def check(values: Mapping[str, Mapping[str, Any]], hosts: list[str]) -> list[Fault]:
    """Faults of C(platform_scrape_jobs) as the hosts of Prometheus see it."""
    return [
        Fault("platform_scrape_jobs", host, text)
        for host in hosts
        for text in _faults(values.get(host, {}).get("platform_scrape_jobs") or [])
    ]


def _faults(jobs: Any) -> Iterable[str]:
    if not isinstance(jobs, list) or not all(isinstance(job, Mapping) for job in jobs):
        # Told by the argument spec.
        return
    for number, job in enumerate(jobs, 1):
        name = job.get("job_name")
        unknown = [str(key) for key in job if key not in _JOB | _DISCOVERY]
        for key in unknown:
            yield _unknown(str(name or number), key, _JOB | _DISCOVERY)
        entries = job.get("static_configs")
        for entry in entries if isinstance(entries, list) else []:
            for key in entry if isinstance(entry, Mapping) else []:
                if key not in _STATIC:
                    yield _unknown(f"{name or number}.static_configs", str(key), _STATIC)
        if not unknown and not job.keys() & ({"static_configs"} | _DISCOVERY):
            yield f"{name or number} has no targets; say static_configs, or how they are discovered (file_sd_configs, dns_sd_configs, ...)"


def _unknown(where: str, key: str, known: frozenset[str]) -> str:
    near = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.75)
    return f"{where}: {key} is no key of a scrape job; " + (
        f"did you mean {near[0]}?" if near else "see scrape_config in Prometheus' documentation"
    )
