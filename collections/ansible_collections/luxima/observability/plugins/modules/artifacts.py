#!/usr/bin/python
# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
from __future__ import annotations

DOCUMENTATION = r"""
---
module: artifacts
short_description: Get everything that is to be installed, by digest
version_added: 0.1.0
author: luxima.observability contributors (@luxima)
description:
  - Fills the artifact store of the controller with what C(components/lock.yml) names, so that hosts need no way to upstream.
  - The sources are asked in the order of O(sources); each is asked for all that is still missing. An archive or a Go module
    that several artifacts share is fetched or built once, also when several checkouts or runs need it at the same time.
  - What is in the cache asks nobody, starts nothing and reports no change.
  - A download whose digest is not the expected one stops the run; nothing of it is stored.
  - Runs on the controller and shows what it is doing every ten seconds.
options:
  names:
    description: Names of artifacts in the lock file. Without it all of them; an empty list means none.
    type: list
    elements: str
  architectures:
    description: CPU architectures of the hosts, in Go's spelling. Builds are cross-compiled.
    type: list
    elements: str
    choices: [amd64, arm64]
    default: [amd64]
  sources:
    description:
      - Where to look, in this order.
      - V(cache) is the store itself. Without it everything is got again.
      - V(directory) takes files called C(name-version-arch), C(name) or like upstream's archive from O(directory). A file is
        refused when the lock has a digest for it and it has another.
      - V(mirror) takes upstream's archives from O(mirror_url), at the same path as upstream's or directly below it, and what
        upstream does not publish as C(name-version-arch).
      - V(release) takes upstream's archives, checked against the list upstream publishes. The digest is recorded in the
        lock file at first use. Packages of kind C(deb) and C(wheelhouse) come from their registries.
      - V(build) compiles the pinned Go module; every dependency is checked against C(components/build/*/go.sum).
    type: list
    elements: str
    choices: [cache, directory, mirror, release, build]
    default: [cache, directory, mirror, release, build]
  cache_dir:
    description: The artifact store, shared by all checkouts of a user.
    type: path
    required: true
  lock_file:
    description: What is installed, from where. Empty means C(components/lock.yml) of the project or of the collection.
    type: path
    default: ""
  directory:
    description: Folder for the source V(directory).
    type: path
    default: ""
  mirror_url:
    description: Base address for the source V(mirror).
    type: str
    default: ""
  timeout:
    description: Seconds without a byte until a download counts as stalled. It is resumed twice before the source is given up.
    type: float
    default: 20
requirements:
  - PyYAML
  - Go 1.26 or newer for the source V(build); C(golang-1.19-go) for cadvisor, C(gcc) for grafana
attributes:
  check_mode:
    description: Says what would be fetched or built, and changes nothing.
    support: full
  diff_mode:
    description: There is no text to compare.
    support: none
notes:
  - Proxies are taken from the environment (C(https_proxy), C(no_proxy), C(GOPROXY)).
"""

EXAMPLES = r"""
- name: Everything the platform installs
  luxima.observability.artifacts:
    cache_dir: "{{ platform_cache_dir }}"

- name: Loki and Promtail for two architectures, never from the internet
  luxima.observability.artifacts:
    names: [loki, promtail]
    architectures: [amd64, arm64]
    sources: [cache, directory, mirror]
    cache_dir: "{{ platform_cache_dir }}"
    directory: /srv/artifacts
    mirror_url: https://mirror.example.org/releases
"""

RETURN = r"""
artifacts:
  description: What the store holds now, in the order asked for. In check mode only what it held before.
  type: list
  elements: dict
  returned: always
  contains:
    name: {description: Name in the lock file., type: str}
    version: {description: Version of the source it came from., type: str}
    arch: {description: CPU architecture., type: str}
    path: {description: File in the store., type: str}
    sha256: {description: Digest of that file., type: str}
    size: {description: Bytes., type: int}
    format: {description: 'C(file), C(tree), C(debs) or C(wheelhouse).', type: str}
    tested: {description: Whether this version is the one the project is tested with., type: bool}
    source: {description: Where it came from when it was got., type: str}
counts:
  description: How many came from which source in this run.
  type: dict
  returned: always
  sample: {cache: 12, build: 2}
predicted:
  description: In check mode, one line for each artifact that is not in the store.
  type: list
  elements: str
  returned: in check mode, when something is missing
notes:
  description: What was accepted without a published checksum, and digests that could not be recorded.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.luxima.observability.plugins.module_utils._artifacts.arguments import (
    ARGUMENTS,
    options,
)
from ansible_collections.luxima.observability.plugins.module_utils._artifacts.engine import (
    ArtifactsError,
    Engine,
)


def main() -> None:
    """Without the action plugin there is nobody to show progress to; the rest is the same."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        module.exit_json(**Engine(options(module.params, check=module.check_mode)).run())
    except ArtifactsError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
