# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What people give a server beside its variables: pieces of its configuration, secret files, dashboards. Pure."""
