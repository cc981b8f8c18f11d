import hashlib
from pathlib import Path

import pytest

from ranker.serving.security import KeyRing, SecurityError, is_loopback, load_keys, require_keys


def test_keys_come_from_the_environment_and_a_file(tmp_path: Path):
    digest = hashlib.sha256(b"three").hexdigest()
    (tmp_path / "keys").write_text(f"# ours\ntwo  # of a colleague\n\nsha256:{digest}\n")
    keys = load_keys(tmp_path / "keys", {"RANKER_API_KEYS": " one ,"})
    assert [keys.admits(f"Bearer {key}") for key in ("one", "two", "three", "four", "", digest)] == [
        True, True, True, False, False, False,
    ]  # fmt: skip
    assert keys.admits("one") and keys.admits("bearer two")
    assert not keys.admits(None)
    assert b"one" not in keys.digests


def test_the_file_may_be_named_in_the_environment(tmp_path: Path):
    (tmp_path / "keys").write_text("one\n")
    assert load_keys(environment={"RANKER_API_KEYS_FILE": str(tmp_path / "keys")}).admits("Bearer one")


def test_without_keys_everybody_is_let_in():
    assert KeyRing().admits(None) and load_keys(environment={}).admits("Bearer anything")


@pytest.mark.parametrize("content", [None, "sha256:beef\n", b"\xff\xfe"])
def test_a_key_file_that_cannot_be_read_stops_the_service(tmp_path: Path, content):
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SecurityError):
        load_keys(path, {})


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.0.1", True), ("::1", True), ("[::1]", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.5", False), ("example.org", False), ("", False)],
)  # fmt: skip
def test_loopback(host: str, expected: bool):
    assert is_loopback(host) is expected


def test_an_open_port_needs_a_key_or_force():
    key = KeyRing((b"digest",))
    with pytest.raises(SecurityError, match=r"'0\.0\.0\.0'.*RANKER_API_KEYS"):
        require_keys(["127.0.0.1", "0.0.0.0"], KeyRing())
    require_keys(["0.0.0.0"], key)
    require_keys(["0.0.0.0"], KeyRing(), force=True)
    require_keys(["127.0.0.1", None], KeyRing())
