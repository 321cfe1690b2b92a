"""`convsync demo`: the sandbox, and a story played on it by real clients, every step of it checked."""

from sync.sandbox.demo.command import demo

__all__ = ["demo"]
