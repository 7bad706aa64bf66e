# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""An inventory's own part of a server's configuration, laid over what a role builds."""

from __future__ import annotations
