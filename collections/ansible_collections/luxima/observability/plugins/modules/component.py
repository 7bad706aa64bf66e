#!/usr/bin/python
# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)

from __future__ import annotations

DOCUMENTATION = r"""
module: component
short_description: Bring one server of the platform on one host to what its record says, in one transaction
version_added: 0.1.0
description:
  - Renders the files of a component on the controller, compares them with the host, and only when something differs
    stages a new release, validates it with the server's own checker, exchanges it with the one that serves, reloads or
    restarts, and asks the server whether it really runs what was pushed. What cannot be proven is taken back, the old
    release is proven again, and the task fails with the server's own words.
  - The first request of a run to a host answers for all its components; later components of the same run send nothing
    when nothing changed.
  - Module arguments never carry content. Files travel as one archive that only root can read.
  - A host may lose its connection, its power or this process at any moment. The old or the new release serves, and
    the next run finishes or undoes.
  - The variables of the component's role, and of the platform, that somebody has set are checked against their argument
    specs before the first request, whatever playbook, tag or limit led here.
options:
  record:
    description:
      - Name of the variable that holds all other options. They are then evaluated after the variables they are made of were checked.
      - No other option may stand beside it.
    type: str
  name:
    description: Name of the component, of its service, of C(/opt/luxima/<name>) and C(/etc/<name>). Needed unless O(record) is given.
    type: str
  state:
    description:
      - V(present) deploys. V(absent) removes what V(present) made and keeps the data directories.
      - V(previous) returns to the release that served before the present one.
    type: str
    choices: [present, absent, previous]
    default: present
  purge:
    description: With O(state=absent), also removes the data directories that this component made.
    type: bool
    default: false
  artifacts:
    description: Names in the artifact store, installed as C(bin/<name>) and linked from C(/usr/local/bin/<name>).
    type: list
    elements: str
    default: []
  tools:
    description: The same for programs that people use; a new one does not restart the service.
    type: list
    elements: str
    default: []
  user:
    description: System user and group of the service. V(root) means that none is made.
    type: str
    default: root
  groups:
    description: Further groups of the user; those that do not exist on the host are left out.
    type: list
    elements: str
    default: []
  directories:
    description: Directories of data, which outlive releases.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Absolute path., type: str, required: true}
      mode: {description: Octal mode in quotes., type: str, default: "0750"}
      owner: {description: "Owner; by default O(user).", type: str}
      group: {description: Group; by default the owner's name., type: str}
      data:
        description:
          - Whether it holds what cannot be made again. It then gets a mark (C(.luxima-<name>)), and neither this module nor systemd starts the
            service where the mark was and is not, such as on the mount point of a missing disk. Variable C(platform_data_lost_confirmed)
            (C(component@host)) begins anew.
        type: bool
        default: true
  files:
    description: Files below C(/etc/<name>), exactly these. Files that are no longer declared disappear.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Path below C(/etc/<name>)., type: str, required: true}
      content: {description: "Text, or data that is written as YAML (as JSON when the path ends in .json).", type: raw}
      template: {description: A file in the role's C(templates/)., type: str}
      source: {description: "A file in the role's C(files/), or a directory, then O(files[].path) is one too.", type: str}
      on_change:
        description: What the server needs to see a new content; V(none) if it watches the file itself.
        type: str
        choices: [restart, reload, none]
        default: restart
      secret: {description: "Readable by root and the service only, never shown.", type: bool, default: false}
      mode: {description: Octal mode in quotes; by default V("0644") or V("0640") of a secret., type: str}
      revision:
        description:
          - C({revision}) in this file, and in O(proof[].contains), stands for a digest of all files that a reload reads.
          - A server that shows its configuration proves by it which one it runs with. Secret files are not part of it.
        type: bool
        default: false
  live:
    description: Directories below C(/etc/<name>) that the server watches or that others write. They are never exchanged.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Path below C(/etc/<name>)., type: str, required: true}
      mode: {description: Octal mode in quotes., type: str, default: "0755"}
      owner: {description: Owner., type: str, default: root}
      group: {description: Group; by default the owner's name., type: str}
  data:
    description:
      - What stored data depends on, of a component that keeps data. The host keeps it, so it holds no secret.
      - A change after which stored data could not be found or read is refused until C(platform_data_change_confirmed) names the component
        (C(loki), or on one host C(loki@store1)); directories of the record that move are one.
      - Where C(platform_protected) is true, a period that becomes shorter than what is in force is refused until
        C(platform_retention_shorten_confirmed) is C(platform_environment), and O(purge) is refused.
    type: dict
    suboptions:
      store: {description: How the files say periods., type: str, choices: [prometheus, loki, tempo, tables, copies]}
      files: {description: Files below C(/etc/<name>) that say how long data is kept; the unit is read too., type: list, elements: str}
      connection: {description: Name of the variable that says how the running server is asked., type: str}
      report: {description: "Command on the host that tells what is in force, instead of a server.", type: list, elements: str}
      together: {description: Components that keep the same data; named when periods change and a run leaves them out., type: list, elements: str}
      fixed:
        description: What must not change.
        type: list
        elements: dict
        suboptions:
          file: {description: A file below C(/etc/<name>)., type: str}
          key: {description: "Dotted path of a value in it.", type: str}
          grows: {description: The value is a list that only gets later entries; name of the key that holds an entry's first day., type: str}
          unit: {description: "Instead, a regular expression for lines of the unit.", type: str}
          variable: {description: What people write., type: str, required: true}
          instead: {description: What to do instead., type: str}
  environment:
    description: Environment variables of the service, in the unit. Never a secret.
    type: dict
    default: {}
  secret_environment:
    description: Environment variables in C(/etc/<name>/environment), a secret file.
    type: dict
    default: {}
  memory:
    description: The most memory the service may have, such as V(512MiB), and nine tenths of it for Go's collector; empty for no limit.
    type: str
  needs:
    description:
      - Without these the service would not start. They are asked from the host before a start or restart, which is refused while one is
        missing, so that what serves goes on serving. In check mode a server that does not answer is a warning.
    type: list
    elements: dict
    default: []
    suboptions:
      url: {description: Address of a server; any answer below 500 will do., type: str}
      path: {description: A path that must be there. One that is missing fails also when nothing would change., type: str}
      words: {description: What is needed and the way out., type: str, required: true}
      ca_file: {description: Trust for HTTPS., type: str}
      cert_file: {description: Client certificate., type: str}
      key_file: {description: Its key., type: str}
      username: {description: User for basic authentication., type: str}
      password_file: {description: File on the host with the password., type: str}
  stored_data_keys:
    description:
      - Variables of O(secret_environment) without which stored data cannot be read, each with C(variable), what people write in the
        inventory, and C(data), the directory.
      - While there is data, a release with another value, or a way back to one, is refused before anything is activated.
    type: dict
    default: {}
  unit:
    description: The systemd service. Needed for O(state=present).
    type: dict
    suboptions:
      description: {description: One line., type: str}
      exec_start: {description: "Program (absolute path) and arguments, literally.", type: list, elements: str, required: true}
      settings: {description: "Keys of C([Service]) that are added or replaced; null removes one.", type: dict, default: {}}
      writable: {description: "Paths the service may write, beside O(directories).", type: list, elements: str, default: []}
      readable: {description: "Paths or patterns it reads; what lies in homes or below C(/tmp) is seen only when it is here.", type: list, elements: str, default: []}
      hardening:
        description: V(host) for services that must see the host's processes, mounts and devices.
        type: str
        choices: [strict, host]
        default: strict
      after: {description: Further units to start after., type: list, elements: str, default: []}
  validate:
    description:
      - Commands that must succeed on the staged release, run as root before anything is activated.
      - C({bin}), C({etc}) and C({share}) are the directories of the staged release, C({scratch}) an empty one.
      - A command is a list of words, or a dictionary with these as C(run) and, for the message of a refusal, what they look at as C(about).
    type: list
    elements: raw
    default: []
  reload:
    description: How the server reads its configuration again. Without it every change restarts.
    type: dict
    suboptions:
      signal: {description: Name of the signal., type: str}
      url: {description: URL; an answer other than 2xx is a refusal., type: str}
      method: {description: HTTP method., type: str, choices: [POST, PUT, GET], default: POST}
      timeout: {description: Seconds., type: float, default: 30}
  ready:
    description: When the server is up. Without a URL, a running process is enough.
    type: dict
    suboptions:
      url: {description: URL as seen from the host itself., type: str}
      status: {description: Expected status., type: int, default: 200}
      timeout: {description: "Seconds for this and for all of O(proof).", type: float, default: 60}
      settle:
        description: Seconds a restarted process must live; by default 4 for a new program and 1 otherwise.
        type: float
      headers: {description: Headers of the request., type: dict}
      ca_file: {description: Trust for HTTPS., type: str}
      cert_file: {description: Client certificate., type: str}
      key_file: {description: Its key., type: str}
      username: {description: User for basic authentication., type: str}
      password_file: {description: File on the host with the password., type: str}
  proof:
    description: All of these must hold after activation, or it is taken back.
    type: list
    elements: dict
    default: []
    suboptions:
      url: {description: URL as seen from the host itself., type: str, required: true}
      status: {description: Expected status., type: int, default: 200}
      contains: {description: Text that the answer must contain., type: str}
      json:
        description:
          - Data that the answer, which is JSON, must have. Of an object the given keys count, of a list the given items in any order.
          - Names that YAML or JSON would quote are compared as what they are.
        type: raw
      only: {description: "Lists of the answer have no further items than those of O(proof[].json).", type: bool, default: false}
      metric: {description: Name of a metric in the answer., type: str}
      labels: {description: Labels the metric must carry., type: dict}
      value: {description: Its expected value., type: float}
      changes:
        description:
          - V(true), the value must differ from the one before a reload, such as the time of the last reload.
          - The name of a label, its value must differ, such as the digest of what was loaded.
        type: raw
        default: false
      follows:
        description:
          - A path of O(files) that the server reads by itself, later. O(proof[].changes) then holds for a change of this file,
            in place of a reload.
        type: str
      headers: {description: Headers of the request., type: dict}
      sign:
        description:
          - Sign the request (AWS signature 4) with variables of a file of variables, usually C(/etc/<name>/environment).
        type: dict
        suboptions:
          file: {description: The file on the host., type: str, required: true}
          access_key: {description: Variable with the access key., type: str, required: true}
          secret_key: {description: Variable with its secret., type: str, required: true}
          region: {description: Region., type: str, default: us-east-1}
      within: {description: "Seconds for which a wrong answer is waited upon; by default O(ready.timeout) decides.", type: float}
      hopeless: {description: Text of an answer that no waiting changes., type: str}
      hint: {description: What a refusal means and how to go on., type: str}
      ca_file: {description: Trust for HTTPS., type: str}
      cert_file: {description: Client certificate., type: str}
      key_file: {description: Its key., type: str}
      username: {description: User for basic authentication., type: str}
      password_file: {description: File on the host with the password., type: str}
  bundle:
    description: Set by the action plugin; the directory on the host with the request and the content it lacks.
    type: path
requirements:
  - Root on the host (C(become) is enough), systemd, Python 3.9 or newer.
notes:
  - Variable C(platform_rollout_slots) says how many hosts may be changed at a time (1). A failure stops the hosts that come later.
  - With variable C(platform_render_dir) the files are written there on the controller and no host is asked.
  - Programs come from the artifact store (variables C(platform_cache_dir) and C(platform_lock_file)), which
    M(luxima.observability.artifacts) fills.
  - The strict hardening was chosen so that it holds in unprivileged LXC guests. C(ProcSubset=pid), C(PrivateUsers=) and IP filters are
    left out, for they break metrics, capabilities, or need BPF.
seealso:
  - module: luxima.observability.artifacts
attributes:
  check_mode: {support: full, description: Predicts exactly what a run would do.}
  diff_mode: {support: full, description: Shows every file but secret ones.}
author:
  - luxima.observability contributors (@luxima)
"""

EXAMPLES = r"""
- name: Deploy Loki
  luxima.observability.component:
    name: loki
    artifacts: [loki]
    user: loki
    directories:
      - {path: /var/lib/loki}
    files:
      - path: loki.yml
        content: "{{ loki_config }}"
    unit:
      description: Loki
      exec_start: [/usr/local/bin/loki, -config.file=/etc/loki/loki.yml]
    validate:
      - ["{bin}/loki", "-config.file={etc}/loki.yml", "-verify-config"]
    ready: {url: "http://127.0.0.1:3100/ready"}

- name: The same from a variable, as the roles do
  luxima.observability.component:
    record: __loki_component

- name: Return to the release before
  luxima.observability.component:
    name: loki
    state: previous
"""

RETURN = r"""
component:
  description: Name of the component.
  returned: always
  type: str
  sample: loki
actions:
  description: What was done, or in check mode would be done, in order.
  returned: always
  type: list
  elements: str
  sample: [staged, validated, reloaded]
release:
  description: Identifier of the release that serves, or in check mode of the one to return to; empty after a removal.
  returned: always
  type: str
  sample: r00003-6b1f0c
edited:
  description: Files that somebody changed on the host since the last run; they are put back, or in check mode would be.
  returned: when something changes with O(state=present)
  type: list
  elements: str
  sample: [/etc/loki/loki.yml]
restarted:
  description: Whether the service was restarted or started.
  returned: always
  type: bool
reloaded:
  description: Whether the service was told to read its configuration again.
  returned: always
  type: bool
validation:
  description: In check mode, whether the server's own checker has seen the files.
  returned: check mode, when something changes
  type: str
journal:
  description: The last lines of the service's journal.
  returned: failure after activation
  type: list
  elements: str
"""

import json
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.luxima.observability.plugins.module_utils._component import state, transaction
from ansible_collections.luxima.observability.plugins.module_utils._component.host import HostError
from ansible_collections.luxima.observability.plugins.module_utils._component.words import said


def main() -> None:
    spec = {
        "name": {"type": "str", "required": True},
        "bundle": {"type": "path"},
        "texts": {"type": "list", "elements": "str"},
        "release": {"type": "str", "default": ""},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    if module.params["texts"]:
        found = state.read_texts(module.params["name"], module.params["texts"], module.params["release"])
        module.exit_json(changed=False, texts=found)
    if not module.params["bundle"]:
        module.exit_json(changed=False, state=state.read_state())
    bundle = Path(module.params["bundle"])
    request = json.loads((bundle / "request.json").read_text(encoding="utf-8"))
    work = transaction.Transaction({**request, "check": module.check_mode}, bundle)
    step = "validation" if request["state"] == "present" else request["state"]
    try:
        work.run()
    except transaction.Missing as missing:
        module.exit_json(changed=False, missing=missing.digests)
    except transaction.Refused as refused:
        module.fail_json(msg=f"{refused}\n{work.untouched()}", step=step, **work.result)
    except transaction.Unproven as unproven:
        module.fail_json(msg=str(unproven), step="activation", **work.result)
    except (HostError, OSError) as error:
        module.fail_json(msg=f"{said(error)}\n{work.untouched()}", step="preparation", **work.result)
    after = state.read_state()
    module.exit_json(**work.result, state=after)


if __name__ == "__main__":
    main()
