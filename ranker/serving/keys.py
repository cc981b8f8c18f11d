"""API keys: hashed, compared in constant time, each with its limits, and read again when their file changes."""

import hashlib
import hmac
import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from ranker.registry import nearest

log = logging.getLogger(__name__)

KEYS_VARIABLE = "RANKER_API_KEYS"
KEYS_FILE_VARIABLE = "RANKER_API_KEYS_FILE"
_HASHED = "sha256:"
# How long a change of the file may stay unseen.
LOOK_AGAIN_S = 1.0


class SecurityError(RuntimeError):
    """A service that would be open to strangers, or a key file that cannot be read."""


@dataclass(frozen=True)
class KeyLimits:
    """What one key may do; None is what the service allows anybody.

    Args:
        requests_per_minute, documents_per_minute: in one gateway replica; 429 above.
        max_documents, max_query_chars, max_body_bytes: of one request.
        write: whether /documents may be changed.
    """

    requests_per_minute: int | None = None
    documents_per_minute: int | None = None
    max_documents: int | None = None
    max_query_chars: int | None = None
    max_body_bytes: int | None = None
    write: bool = True


@dataclass(frozen=True)
class Key:
    """An accepted key: the name that logs and limits know it by, its SHA-256 digest, and its limits."""

    name: str
    digest: bytes
    limits: KeyLimits = KeyLimits()


ANYBODY = Key("anybody", b"")


@dataclass(frozen=True)
class KeyRing:
    """The accepted keys, held as SHA-256 digests. None, and not closed: every request is let in (loopback only).

    Args:
        closed: a file of keys is named, so that without a key in it nobody is let in.
    """

    keys: tuple[Key, ...] = ()
    closed: bool = False

    def __bool__(self) -> bool:
        return self.closed or bool(self.keys)

    def find(self, authorization: str | None) -> Key | None:
        """The key in an ``Authorization`` header: ``Bearer KEY``, or the bare key as some clients send it; else None.

        All keys are compared, each in constant time, so the answer's time says nothing about them.
        """
        if not self:
            return ANYBODY
        digest = _digest(_token(authorization or ""))
        matches = [key for key in self.keys if hmac.compare_digest(digest, key.digest)]
        return matches[0] if matches else None

    def admits(self, authorization: str | None) -> bool:
        """Whether an ``Authorization`` header holds a key."""
        return self.find(authorization) is not None


class KeyWatch:
    """A ring that follows its file: a key that is added or struck out counts within a second, without a restart.

    An empty file lets nobody in. Where it cannot be read any more, the keys that were read last stay; the log says so.

    Args:
        file, environment: as :func:`load_keys` takes them. clock: seconds, monotonic.

    Raises:
        SecurityError: where the file cannot be read at the start.
    """

    def __init__(
        self,
        file: str | Path | None = None,
        environment: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file, self._environment, self._clock = file, environment, clock
        self._seen, self._looked = self._mark(), clock()
        self._ring = load_keys(file, environment)

    def __bool__(self) -> bool:
        return bool(self.ring())

    def find(self, authorization: str | None) -> Key | None:
        """As :meth:`KeyRing.find`, with the keys as they stand in the file now."""
        return self.ring().find(authorization)

    def ring(self) -> KeyRing:
        """The keys now; the file is looked at again once a second at most."""
        now = self._clock()
        if now - self._looked >= LOOK_AGAIN_S:
            self._looked = now
            mark = self._mark()
            if mark != self._seen:
                self._read_again(mark)
        return self._ring

    def _read_again(self, mark: object) -> None:
        try:
            ring = load_keys(self._file, self._environment)
        except SecurityError as error:
            log.error("%s; the keys that were read before stay in force", error)
        else:
            self._ring = ring
            log.info("API keys read again: %d", len(ring.keys))
        self._seen = mark

    def _mark(self) -> object:
        """What changes when the file does; a mounted secret is a link to a new file then."""
        path = _path_of(self._file, self._environment)
        try:
            about = path.stat() if path else None
        except OSError:
            return "missing"
        return (about.st_ino, about.st_mtime_ns, about.st_size) if about else None


def load_keys(file: str | Path | None = None, environment: Mapping[str, str] | None = None) -> KeyRing:
    """Keys of RANKER_API_KEYS (separated by commas) and of a file (one a line, ``#`` starts a comment).

    A key is written as it is or as ``sha256:<hex digest>``, and may be followed by its name and its limits:
    ``sha256:9f86... name=team-a requests_per_minute=600 write=no``. ``file=None`` reads the file that
    RANKER_API_KEYS_FILE names, if any. A file without a key, and none elsewhere: nobody is let in.

    Raises:
        SecurityError: where the file is missing, or naming every entry that cannot be read (and no key).
    """
    path = _path_of(file, environment)
    variables = os.environ if environment is None else environment
    written = [
        (f"{KEYS_VARIABLE}, entry {number}", entry)
        for number, entry in enumerate(variables.get(KEYS_VARIABLE, "").split(","), start=1)
    ]
    if path:
        lines = _read_lines(path)
        written += [(f"{path}, line {number}", line) for number, line in enumerate(lines, start=1)]
        plain = [n for n, line in enumerate(lines, start=1) if line.strip() and not line.strip().startswith(_HASHED)]
        if plain:
            log.warning(
                "%s: lines %s hold keys as they are; 'ranker serve key' writes lines that hold only a hash",
                path, ", ".join(map(str, plain[:10])),
            )  # fmt: skip
    keys: dict[bytes, Key] = {}
    problems: list[str] = []
    for where, entry in written:
        if entry.strip():
            try:
                key = _parse(entry.split(), f"key-{len(keys) + 1}")
                keys.setdefault(key.digest, key)
            except ValueError as error:
                problems.append(f"{where}: {error}")
    if problems:
        raise SecurityError("\n".join(problems))
    if path and not keys:
        log.warning("%s: holds no API key, so every request is refused", path)
    return KeyRing(tuple(keys.values()), closed=path is not None)


def new_key() -> tuple[str, str]:
    """A new random key of 256 bits, and how it is written in a file of keys."""
    key = secrets.token_urlsafe(32)
    return key, _HASHED + _digest(key).hex()


def _token(header: str) -> str:
    scheme, _, rest = header.strip().partition(" ")
    return rest.strip() if scheme.lower() == "bearer" and rest else header.strip()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _parse(words: list[str], name: str) -> Key:
    """The key that these words of an entry say. Messages quote no key."""
    digest = _parse_digest(words[0])
    options: dict[str, str] = {}
    for word in words[1:]:
        option, equals, value = word.partition("=")
        if not equals or not value:
            raise ValueError("behind a key stand words such as name=team-a or requests_per_minute=600")
        options[option] = value
    named = options.pop("name", name)
    known = [field.name for field in fields(KeyLimits)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"unknown option {unknown[0]!r}; {nearest(unknown[0], ['name', *known])}")
    limits = {option: _limit(option, value) for option, value in options.items()}
    return Key(named, digest, KeyLimits(**limits))  # type: ignore[arg-type]


def _limit(option: str, value: str) -> int | bool:
    if option == "write":
        if value not in ("yes", "no"):
            raise ValueError(f"write={value}: must be yes or no")
        return value == "yes"
    if not value.isascii() or not value.isdigit() or int(value) < 1:
        raise ValueError(f"{option}={value}: must be a whole number above 0")
    return int(value)


def _parse_digest(key: str) -> bytes:
    if not key.startswith(_HASHED):
        return _digest(key)
    try:
        digest = bytes.fromhex(key.removeprefix(_HASHED))
    except ValueError:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise ValueError(f"an API key starts with {_HASHED!r} but is not followed by 64 hex digits")
    return digest


def _path_of(file: str | Path | None, environment: Mapping[str, str] | None) -> Path | None:
    variables = os.environ if environment is None else environment
    named = file or variables.get(KEYS_FILE_VARIABLE)
    return Path(named).expanduser() if named else None


def _read_lines(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SecurityError(f"{path}: the file of API keys cannot be read: {error}") from error
    return [line.partition("#")[0] for line in lines]
