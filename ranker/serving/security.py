"""Who may ask: bearer keys compared in constant time, and no open port without one."""

import hashlib
import hmac
import ipaddress
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

KEYS_VARIABLE = "RANKER_API_KEYS"
KEYS_FILE_VARIABLE = "RANKER_API_KEYS_FILE"
_HASHED = "sha256:"


class SecurityError(RuntimeError):
    """A service that would be open to strangers, or a key file that cannot be read."""


@dataclass(frozen=True)
class KeyRing:
    """The accepted keys, held as SHA-256 digests. Empty: every request is let in (loopback only)."""

    digests: tuple[bytes, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.digests)

    def admits(self, authorization: str | None) -> bool:
        """Whether an ``Authorization`` header holds a key: ``Bearer KEY``, or the bare key as some clients send it.

        All keys are compared, each in constant time, so the answer's time says nothing about them.
        """
        if not self.digests:
            return True
        digest = _digest(_token(authorization or ""))
        matches = [hmac.compare_digest(digest, known) for known in self.digests]
        return any(matches)


def load_keys(file: str | Path | None = None, environment: Mapping[str, str] | None = None) -> KeyRing:
    """Keys of RANKER_API_KEYS (separated by commas) and of a file (one a line, ``#`` starts a comment).

    A key is written as it is or as ``sha256:<hex digest>``. ``file=None`` reads the file that
    RANKER_API_KEYS_FILE names, if any.

    Raises:
        SecurityError: where the file is missing or a digest is malformed.
    """
    variables = os.environ if environment is None else environment
    path = file or variables.get(KEYS_FILE_VARIABLE)
    written = variables.get(KEYS_VARIABLE, "").split(",")
    if path:
        written += _read_lines(Path(path).expanduser())
    return KeyRing(tuple(dict.fromkeys(_parse(key.strip()) for key in written if key.strip())))


def require_keys(hosts: Iterable[str | None], keys: KeyRing, force: bool = False) -> None:
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


def _token(header: str) -> str:
    scheme, _, rest = header.strip().partition(" ")
    return rest.strip() if scheme.lower() == "bearer" and rest else header.strip()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _parse(key: str) -> bytes:
    if not key.startswith(_HASHED):
        return _digest(key)
    try:
        digest = bytes.fromhex(key.removeprefix(_HASHED))
    except ValueError:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise SecurityError(f"an API key starts with {_HASHED!r} but is not followed by 64 hex digits")
    return digest


def _read_lines(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SecurityError(f"{path}: the file of API keys cannot be read: {error}") from error
    return [line.partition("#")[0] for line in lines]
