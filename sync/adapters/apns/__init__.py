"""APNs as a PushGate: one HTTP/2 connection for each server, kept open; a verdict for whatever happens to a push."""

from sync.adapters.apns.gate import ApnsApp, ApnsGate, GateLimits
from sync.adapters.apns.provider_key import ProviderKey

__all__ = ["ApnsApp", "ApnsGate", "GateLimits", "ProviderKey"]
