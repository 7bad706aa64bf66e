# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What jobs on guests share, whatever their work: timers, lock, state, metrics, commands, servers. Standard library only, Python 3.9."""
