#!/usr/bin/python
# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
from __future__ import annotations

DOCUMENTATION = r"""
module: proxmox_template
short_description: What Proxmox VE guests are made from
version_added: 0.1.0
description:
  - Puts container templates, ISO images and disk images on storages, by upload or by a download of the node itself.
  - Makes virtual machines to clone from disk images, with a cloud-init drive, a serial console and the guest agent. Nothing needs SSH to a node.
  - Files and machines that are not listed are left alone, and so is a machine of a listed name that is no template.
  - V(absent) removes a machine that was made here, which its notes tell, or that has the record's vmid.
  - Missing storages, images, bridges, pools and privileges are reported in one message before anything is changed.
author: luxima.observability contributors (@luxima)
extends_documentation_fragment: [luxima.observability.proxmox]
options:
  deadline:
    description: Seconds one transfer or one import may take.
    type: int
    default: 1800
  templates:
    description: The templates. Files come before the machines that are made from them.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: 'Name of the file on the storage, with its ending, or of the virtual machine.', type: str, required: true}
      kind:
        description: V(vztmpl), V(iso) and V(import) (a disk image) are files, V(vm) is a virtual machine to clone.
        type: str
        choices: [vztmpl, iso, import, vm]
        required: true
      state: {description: What should become of it., type: str, choices: [present, absent], default: present}
      storage: {description: 'Storage of the file (default V(local)), or of the disk of the machine.', type: str}
      nodes: {description: 'Nodes that get a copy. Left out: every node that has the storage, or one of them where they share it.', type: list, elements: str}
      src: {description: File on the controller. It is uploaded when the storage has none of its name and size., type: path}
      url: {description: Where a node downloads the file from when the storage has none of its name., type: str}
      checksum: {description: 'What the node compares with the file, as V(sha256:...). Needed with O(templates[].url).', type: str}
      verify_certificates: {description: 'Whether the node trusts only valid certificates at O(templates[].url).', type: bool, default: true}
      image: {description: 'Volume with the disk image of the machine, for example V(local:import/debian-12.qcow2).', type: str}
      vmid: {description: 'Id of the machine, on further nodes the next ones. Left out: free ones.', type: int}
      cores: {description: CPU cores of the machine., type: int, default: 1}
      memory_mb: {description: Memory of the machine in MiB., type: int, default: 1024}
      bridge: {description: Bridge of its network card., type: str, default: vmbr0}
      tags: {description: Tags of the machine., type: list, elements: str, default: []}
      pool: {description: Pool of the machine., type: str}
attributes:
  check_mode: {support: full, description: Predicts exactly what a run would do.}
  diff_mode: {support: full, description: 'Per template, what differs and nothing else.'}
notes:
  - An existing machine is compared by the image it was made from, which its notes tell, and never changed.
"""

EXAMPLES = r"""
- name: A container template, and a virtual machine on every node
  luxima.observability.proxmox_template:
    api_host: pve1.example.org
    api_user: automation@pve
    api_token_id: ansible
    api_token_secret: "{{ vault_proxmox_token }}"
    templates:
      - name: debian-12-standard_12.12-1_amd64.tar.zst
        kind: vztmpl
        src: files/debian-12-standard_12.12-1_amd64.tar.zst
      - name: debian-12.qcow2
        kind: import
        url: https://cloud.debian.org/images/cloud/bookworm/20260101-2300/debian-12-genericcloud-amd64-20260101-2300.qcow2
        checksum: "sha512:{{ debian_image_sha512 }}"
      - {name: debian-12-cloud, kind: vm, image: "local:import/debian-12.qcow2", storage: local-lvm, vmid: 9001}
  delegate_to: localhost
"""

RETURN = r"""
templates:
  description: 'What became of each template, by name and node (V(local:iso/debian.iso on pve1)). Also returned on failure.'
  returned: always
  type: dict
  contains:
    actions:
      description: 'What was done: uploaded, replaced, downloaded, created, converted, removed.'
      type: list
      elements: str
    before: {description: Managed values before., type: dict}
    after: {description: Managed values after., type: dict}
    changed: {description: Whether anything was done., type: bool}
    upids: {description: Tasks on the hypervisor., type: list, elements: str}
    seconds: {description: Time spent on the template., type: float}
"""

from ansible.module_utils.basic import AnsibleModule, env_fallback
from ansible_collections.luxima.observability.plugins.module_utils._proxmox.report import execute
from ansible_collections.luxima.observability.plugins.module_utils._proxmox.templates import module_spec, run


def main() -> None:
    module = AnsibleModule(argument_spec=module_spec(env_fallback), supports_check_mode=True)
    execute(module, run, "templates")


if __name__ == "__main__":
    main()
