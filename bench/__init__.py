"""Measurements on a running lab: ``make bench``."""
