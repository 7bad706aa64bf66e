# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Copies of a guest's data: taken by timers, kept for a time, put back by hand. Standard library only, Python 3.9."""
