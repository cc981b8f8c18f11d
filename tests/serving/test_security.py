import hashlib
from pathlib import Path

import pytest

from ranker.serving.keys import Key, KeyRing, KeyWatch, SecurityError, load_keys, new_key
from ranker.serving.rates import Balance
from ranker.serving.security import is_loopback, require_keys


def test_keys_come_from_the_environment_and_a_file(tmp_path: Path):
    digest = hashlib.sha256(b"three").hexdigest()
    (tmp_path / "keys").write_text(f"# ours\ntwo  # of a colleague\n\nsha256:{digest}\n")
    keys = load_keys(tmp_path / "keys", {"RANKER_API_KEYS": " one ,"})
    assert [keys.admits(f"Bearer {key}") for key in ("one", "two", "three", "four", "", digest)] == [
        True, True, True, False, False, False,
    ]  # fmt: skip
    assert keys.admits("one") and keys.admits("bearer two")
    assert not keys.admits(None)
    assert b"one" not in {key.digest for key in keys.keys}


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
    key = KeyRing((Key("ours", b"digest"),))
    with pytest.raises(SecurityError, match=r"'0\.0\.0\.0'.*RANKER_API_KEYS"):
        require_keys(["127.0.0.1", "0.0.0.0"], KeyRing())
    require_keys(["0.0.0.0"], key)
    require_keys(["0.0.0.0"], KeyRing(), force=True)
    require_keys(["127.0.0.1", None], KeyRing())


def test_a_key_may_have_a_name_and_limits(tmp_path: Path):
    (tmp_path / "keys").write_text("one name=team-a requests_per_minute=60 write=no\ntwo max_documents=5\n")
    keys = load_keys(tmp_path / "keys", {})
    one, two = keys.find("one"), keys.find("two")
    assert (one.name, one.limits.requests_per_minute, one.limits.write) == ("team-a", 60, False)
    assert (two.name, two.limits.max_documents, two.limits.write) == ("key-2", 5, True)


def test_all_mistakes_of_a_key_file_are_told_without_the_keys(tmp_path: Path):
    (tmp_path / "keys").write_text("hushhush requests=5\nhushhush2 write=maybe\nhushhush3 max_documents=0\n")
    with pytest.raises(SecurityError) as told:
        load_keys(tmp_path / "keys", {})
    lines = str(told.value).splitlines()
    assert [line.partition(": ")[0].rpartition(" ")[2] for line in lines] == ["1", "2", "3"]
    assert "requests_per_minute" in lines[0] and "yes or no" in lines[1] and "above 0" in lines[2]
    assert "hush" not in str(told.value)


def test_a_new_key_is_random_and_only_its_hash_is_written():
    key, written = new_key()
    assert len(key) >= 43 and key not in written and new_key()[0] != key
    assert load_keys(environment={"RANKER_API_KEYS": written}).admits(f"Bearer {key}")


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_keys_follow_their_file_without_a_restart(tmp_path: Path):
    file, clock = tmp_path / "keys", Clock()
    file.write_text("one\n")
    watch = KeyWatch(file, {}, clock)
    file.write_text("one\ntwo # new\n")
    assert watch.find("two") is None  # a file is looked at once a second at most
    clock.now = 1.0
    assert watch.find("two") is not None
    file.write_text("two\n")
    clock.now = 2.0
    assert watch.find("one") is None and watch.find("two") is not None


def test_a_file_that_is_emptied_lets_nobody_in_also_after_a_restart(tmp_path: Path, caplog):
    file, clock = tmp_path / "keys", Clock()
    file.write_text("one\n")
    watch = KeyWatch(file, {}, clock)
    file.write_text("# nobody\n")
    clock.now = 1.0
    for keys in (watch, KeyWatch(file, {}), load_keys(file, {})):
        assert keys and keys.find("one") is None and keys.find(None) is None
    assert "every request is refused" in caplog.text
    require_keys(["0.0.0.0"], watch)  # closed to everybody is not open
    assert load_keys(file, {"RANKER_API_KEYS": "two"}).admits("two")
    file.write_text("three\n")
    clock.now = 2.0
    assert watch.find("three") is not None


@pytest.mark.parametrize("content", ["sha256:beef\n", None])
def test_a_file_that_is_broken_later_leaves_the_keys_in_force(tmp_path: Path, content, caplog):
    file, clock = tmp_path / "keys", Clock()
    file.write_text("one\n")
    watch = KeyWatch(file, {}, clock)
    file.unlink() if content is None else file.write_text(content)
    clock.now = 1.0
    assert watch.find("one") is not None and watch.find("two") is None
    assert "stay in force" in caplog.text


def test_a_balance_fills_evenly_and_only_what_is_larger_overdraws_it():
    clock = Clock()
    balance = Balance(60, clock)  # one a second
    assert [balance.spend(50), balance.spend(20), balance.spend(10)] == [0, 10, 0]
    clock.now = 3600.0
    assert balance.spend(90) == 0  # more than a minute's worth, from a full balance
    assert balance.spend(1) == 31  # 30 s until it is zero again, and one more
    clock.now += 31
    assert balance.spend(1) == 0
