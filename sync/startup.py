"""The end of a start that cannot succeed: one sentence for whoever started it."""


class CannotStart(Exception):
    """What is missing and what mends it, in one sentence without secrets. The process ends with status 1."""
