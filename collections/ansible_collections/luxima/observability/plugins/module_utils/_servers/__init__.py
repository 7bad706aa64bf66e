# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""How the controller talks to the platform's servers over HTTP."""

from __future__ import annotations
