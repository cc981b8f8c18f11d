"""No open port without a key."""

import ipaddress
from collections.abc import Iterable

from ranker.serving.keys import (
    KEYS_FILE_VARIABLE,
    KEYS_VARIABLE,
    KeyRing,
    KeyWatch,
    SecurityError,
    load_keys,
)

__all__ = [
    "KEYS_FILE_VARIABLE",
    "KEYS_VARIABLE",
    "KeyRing",
    "KeyWatch",
    "SecurityError",
    "is_loopback",
    "load_keys",
    "require_keys",
    "running_host",
]


def require_keys(hosts: Iterable[str | None], keys: KeyRing | KeyWatch, force: bool = False) -> None:
    """Let a service start on these HTTP hosts only with a key, or on loopback, or when forced.

    Raises:
        SecurityError: naming the open host and the three ways out.
    """
    open_hosts = sorted({host for host in hosts if host is not None and not is_loopback(host)})
    if open_hosts and not keys and not force:
        raise SecurityError(
            f"http_options.host is {open_hosts[0]!r} and no API key is set, so anybody on the network could use this "
            f"service; set {KEYS_VARIABLE} or {KEYS_FILE_VARIABLE} (or api_keys_file in args), or bind 127.0.0.1, or "
            "set allow_open: true in args when something in front of the service checks who asks"
        )


def running_host() -> str | None:
    """The host that the running Serve instance listens on; None where none runs yet, or it has no HTTP port."""
    import ray

    if not ray.is_initialized():
        return None
    # Ray has no public call for this; the address that it binds is decided when Serve starts, by the config file.
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    return client.http_config.host if client is not None else None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host."""
    if host in ("localhost", ""):
        return host == "localhost"
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
