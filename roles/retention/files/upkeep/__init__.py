# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Jobs that keep the retention policy where no server does it by itself. Runs on guests: standard library, Python 3.9."""
