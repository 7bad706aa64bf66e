#!/usr/bin/python
# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
from __future__ import annotations

DOCUMENTATION = r"""
module: proxmox_guests
short_description: Containers and virtual machines of Proxmox VE, a whole environment in one call
version_added: 0.1.0
description:
  - Makes the guests of a list what their records say, side by side, and reads them back.
  - A second run changes nothing. Keys of a guest that its record does not name are left alone.
  - Everything missing on the hypervisor (node, storage, bridge, template, pool, privilege) is reported in one message
    before anything is made.
  - A guest that fails does not stop the others. The module then fails and names each one.
  - Names are asked of the nodes themselves. Where a node does not answer, its guests are left as they are, and nothing is made
    under a name that one of them may have; what is on other nodes converges.
  - A guest that moves to another node during the run is followed.
  - Ids are allocated for the whole list and a taken one is replaced by the next. Locks are waited for, and a
    configuration that somebody else changed meanwhile is read and planned again.
author: luxima.observability contributors (@luxima)
extends_documentation_fragment: [luxima.observability.proxmox]
options:
  deadlines:
    description: Seconds an operation on one guest may take.
    type: dict
    default: {}
    suboptions:
      create: {description: Making a container from a template. Default 900., type: int}
      clone: {description: Cloning a VM. Default 1800., type: int}
      configure: {description: Changing a configuration or a pool. Default 120., type: int}
      resize: {description: Growing a volume. Default 300., type: int}
      start: {description: Starting. Default 180., type: int}
      stop: {description: 'Stopping and rebooting; the guest is asked for two thirds of it, then stopped. Default 120.', type: int}
      destroy: {description: Destroying. Default 300., type: int}
      lock: {description: Waiting for operations of others. Default 180., type: int}
      address:
        description:
          - Waiting for the address by DHCP of a guest that was started less than this ago; 0 does not wait. Default 120.
          - A VM without the guest agent in its configuration is not waited for.
        type: int
  workers:
    description: Guests worked on at a time; each worker has a session of its own.
    type: int
    default: 8
  reboot:
    description:
      - What to do when a change of a running guest holds only after a reboot.
      - With V(never), RV(guests.needs_reboot) says so.
    type: str
    choices: [never, if_needed]
    default: never
  destroy_by_name:
    description:
      - Whether V(absent) destroys a guest that has only its name and kind in common with the record, and V(template) makes a
        template of such a guest while it runs.
      - Else it must have the record's O(guests[].vmid), its O(guests[].pool) or all its O(guests[].tags), and the record at
        least one of them.
    type: bool
    default: false
  promised:
    description: What earlier tasks of the same run make. In check mode, where they make nothing, it counts as there.
    type: dict
    suboptions:
      pools: {description: Names of pools., type: list, elements: str}
      templates: {description: Volumes of container templates and names of VMs to clone., type: list, elements: str}
  guests:
    description: The guests. Values that are left out, and empty texts, are not managed.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Host name. Identifies the guest unless O(guests[].vmid) does; two guests of that name are refused, and so are two
            records that mean the same guest. Capitals make no difference.
        type: str
        required: true
      kind:
        description: Container or virtual machine. Options that only the other kind has are ignored.
        type: str
        choices: [lxc, vm]
        default: lxc
      state:
        description:
          - V(present) leaves the power state alone.
          - V(restarted) reboots in every run.
          - V(started) resumes a VM that is hibernated before anything of it is changed. With any other state such a VM takes no changes.
          - V(absent) stops the guest without asking it and destroys it with its volumes, if more than its name says that it is
            the one (see O(destroy_by_name)).
          - V(template) stops the guest and makes a template of it, which cannot be undone and whose volumes are never changed.
        type: str
        choices: [present, started, stopped, restarted, absent, template]
        default: started
      vmid:
        description:
          - Id of the guest. Left out or 0, a new guest gets the next free one.
          - A guest with this id and another name is renamed only if it carries all O(guests[].tags) of the record.
        type: int
      node:
        description: Node for a new guest. Left out, the node with the fewest guests that has all it needs. Guests are not moved.
        type: str
      template:
        description: Volume of the container template, or name or id of the VM to clone. Used at creation only.
        type: str
      clone_of:
        description:
          - Name or id of the guest to clone, of the same kind; takes precedence over O(guests[].template). Used at creation only.
          - A cloned container keeps the keys of its source, a cloned VM gets O(guests[].ssh_public_keys) from cloud-init. A VM
            without a cloud-init drive is not cloned for a record that needs one.
          - Volumes lie where O(guests[].rootfs) and O(guests[].disks) say; those without a storage there stay where their source's
            are, unless the clone has to go to another storage as a whole.
          - With one template of a name on each node, the one on O(guests[].node) is cloned, else that of the emptiest node.
        type: str
      linked:
        description: Whether the clone of a template refers to its volumes instead of copying them. Used at creation only.
        type: bool
      ha:
        description:
          - Whether the HA manager keeps the guest in the state it has, restarting it elsewhere when its node fails.
          - Needs Sys.Console on C(/).
        type: bool
      pool:
        description: Pool the guest belongs to.
        type: str
      cores: {description: CPU cores., type: int}
      memory_mb: {description: Memory in MiB. Less than ballooning leaves to a VM takes that along., type: int}
      swap_mb: {description: Swap of a container in MiB., type: int}
      rootfs:
        description:
          - Root file system of a container, boot disk of a VM. It grows and never shrinks.
          - The boot disk is the one that the VM's boot order names first, or C(bootdisk) where there is none. When it cannot be told,
            nothing is grown.
        type: dict
        suboptions:
          storage: {description: Storage it lies on., type: str}
          size_gb: {description: Size in GiB., type: float, required: true}
      disks:
        description:
          - Further volumes. They grow and never shrink; those not listed are left alone.
          - No new one is made while the guest has a volume on that storage that is attached nowhere. It may be the one that is meant.
        type: list
        elements: dict
        suboptions:
          slot:
            description: C(mp0) to C(mp255) of a container; C(scsi0) to C(scsi30), C(virtio0) to C(virtio15), C(sata0) to C(sata5) of a VM.
            type: str
            required: true
          storage: {description: Storage it lies on., type: str, required: true}
          size_gb: {description: Size in GiB., type: float, required: true}
          path: {description: Where a container mounts it., type: str}
      networks:
        description:
          - Network interfaces. Present ones are changed in place and keep their MAC; those not listed are left alone.
          - The first one of a VM without C(net0) is the first that it has.
        type: list
        elements: dict
        suboptions:
          name:
            description: Name inside a container. Default C(eth0), C(eth1), ... by position; for the first one, the name that C(net0) has.
            type: str
          bridge: {description: Bridge or virtual network., type: str, required: true}
          vlan: {description: VLAN tag; 0 for none., type: int}
          address: {description: 'IPv4 address with prefix length, V(dhcp) or V(manual).', type: str}
          gateway: {description: 'Default gateway. Belongs to O(guests[].networks[].address); left out with a static address there is none.', type: str}
          address6:
            description: IPv6 address with prefix length, V(auto) (the network announces it), V(dhcp) or V(manual).
            type: str
          gateway6: {description: 'Default gateway for IPv6; as O(guests[].networks[].gateway) for O(guests[].networks[].address6).', type: str}
          mac: {description: 'MAC address. Left out, the present or a generated one.', type: str}
          firewall: {description: Whether the hypervisor's firewall filters this interface., type: bool}
      nameservers:
        description: DNS servers in order; an empty list means those of the node.
        type: list
        elements: str
      searchdomain: {description: 'DNS search domains, one or several with blanks or commas between.', type: str}
      tags:
        description: All tags of the guest.
        type: list
        elements: str
      onboot: {description: Whether the guest starts with its node., type: bool}
      startup: {description: 'Order and delays, for example V(order=2,up=30). For a VM it needs Sys.Modify on C(/).', type: str}
      features:
        description:
          - 'Features of a container, for example V({nesting: true}). Those not named are left alone.'
          - All but C(nesting), and that of a privileged container, are changed by C(root@pam) with a password only.
        type: dict
      unprivileged: {description: Whether a container is unprivileged. Fixed at creation., type: bool}
      protection: {description: Whether the guest and its disks are protected from removal., type: bool}
      description: {description: Notes., type: str}
      user:
        description: User of a VM that cloud-init makes and gives the keys to. Used at creation only.
        type: str
      ssh_public_keys:
        description: Public keys of root in a container, of the cloud-init user in a VM. Used at creation only.
        type: list
        elements: str
attributes:
  check_mode: {support: full, description: Predicts exactly what a run would do.}
  diff_mode: {support: full, description: 'Per guest, what differs and nothing else.'}
"""

EXAMPLES = r"""
- name: Two containers
  luxima.observability.proxmox_guests:
    api_host: pve1.example.org
    api_user: automation@pve
    api_token_id: ansible
    api_token_secret: "{{ vault_proxmox_token }}"
    guests:
      - name: web-1
        template: local:vztmpl/debian-12-standard_12.12-1_amd64.tar.zst
        cores: 2
        memory_mb: 2048
        rootfs: {storage: local-lvm, size_gb: 16}
        networks:
          - {bridge: vmbr0, address: 10.0.0.11/24, gateway: 10.0.0.1}
        ssh_public_keys: ["ssh-ed25519 AAAA... operator"]
      - name: db-1
        kind: vm
        clone_of: debian-12-cloud
        cores: 2
        memory_mb: 4096
        rootfs: {storage: local-lvm, size_gb: 32}
        networks:
          - {bridge: vmbr0, address: 10.0.0.12/24, gateway: 10.0.0.1}
        user: root
        ssh_public_keys: ["ssh-ed25519 AAAA... operator"]
      - name: old-1
        state: absent
        tags: [production]

- name: A template of containers with everything in it, and a container from it
  luxima.observability.proxmox_guests:
    guests:
      - {name: base-1, template: "local:vztmpl/debian-12-standard_12.12-1_amd64.tar.zst", state: template}
      - {name: web-2, clone_of: base-0, linked: true, ha: true}
  delegate_to: localhost
"""

RETURN = r"""
guests:
  description: What became of each guest, by name. Also returned on failure.
  returned: always
  type: dict
  contains:
    exists: {description: 'Whether the guest exists now. In check mode false for one that would be made.', type: bool}
    vmid: {description: Its id; the likely one in check mode., type: int}
    node: {description: Its node., type: str}
    addresses: {description: 'Addresses without prefix length, those of IPv4 first.', type: list, elements: str}
    before: {description: Managed values before., type: dict}
    after: {description: Managed values after., type: dict}
    actions:
      description: 'What was done, in order: created, cloned, moved, configured, grown, pooled, templated,
        started, stopped, rebooted, ha_added, ha_removed, destroyed.'
      type: list
      elements: str
    needs_reboot: {description: Whether something waits for a reboot., type: bool}
    pending: {description: 'What waits for it: options as the hypervisor calls them.', type: list, elements: str}
    error: {description: Why it is not what its record says; empty when it is., type: str}
    upids: {description: Tasks on the hypervisor., type: list, elements: str}
    seconds: {description: Time spent on the guest., type: float}
    changed: {description: Whether anything was done., type: bool}
"""

from ansible.module_utils.basic import AnsibleModule, env_fallback
from ansible_collections.luxima.observability.plugins.module_utils._proxmox.engine import run
from ansible_collections.luxima.observability.plugins.module_utils._proxmox.options import module_spec
from ansible_collections.luxima.observability.plugins.module_utils._proxmox.report import execute


def main() -> None:
    module = AnsibleModule(argument_spec=module_spec(env_fallback), supports_check_mode=True)
    execute(module, run, "guests", "guests")


if __name__ == "__main__":
    main()
