"""Models and indexes change places while requests go on."""

import asyncio
import threading

import pytest

from ranker.serving.errors import UnknownModelError
from ranker.serving.swap import Swapper, change_of


class Loader:
    """Things are lists; a source called ``slow`` waits, one called ``broken`` fails."""

    def __init__(self):
        self.go, self.loaded, self.closed = threading.Event(), [], []

    def __call__(self, source: str) -> list[str]:
        if source == "broken":
            raise OSError("no weights there")
        if source == "slow":
            self.go.wait(10)
        self.loaded.append(source)
        return [source]

    def close(self, thing: list[str]) -> None:
        self.closed.append(thing[0])


def story(function):
    loader = Loader()
    swapper = Swapper(loader, loader.close)
    asyncio.run(function(swapper, loader))


def test_names_are_found_and_the_first_is_meant_unsaid():
    async def told(swapper, loader):
        await swapper.replace({"small": "a", "large": "b", "alias": "a"})
        assert loader.loaded == ["a", "b"]  # one source is loaded once
        for name, expected in {None: ("small", ["a"]), "large": ("large", ["b"]), "alias": ("alias", ["a"])}.items():
            with swapper.use(name) as found:
                assert found == expected
        with (
            pytest.raises(UnknownModelError, match="no such model; there are: small, large, alias"),
            swapper.use("rerank-v3"),
        ):
            pass
        await swapper.replace({"only": "b"})
        await swapper.settled()
        with swapper.use("whatever a client sends") as (name, _):
            assert name == "only"

    story(told)


def test_the_old_one_serves_until_the_new_one_is_loaded_and_closes_after_its_last_request():
    async def told(swapper, loader):
        await swapper.replace({"m": "old"})
        await swapper.replace({"m": "slow"})  # returns at once
        assert change_of(swapper.state()) == "loading"
        with swapper.use() as (_, running):
            loader.go.set()
            await swapper.settled()
            with swapper.use() as (_, new):
                assert (running, new, loader.closed) == (["old"], ["slow"], [])
        assert loader.closed == ["old"]
        assert swapper.state() == {"in_use": {"m": "slow"}, "loading": [], "problem": ""}

    story(told)


def test_what_cannot_be_loaded_changes_nothing_and_there_is_a_way_back():
    async def told(swapper, loader):
        await swapper.replace({"m": "old"})
        await swapper.replace({"m": "new", "other": "broken"})
        await swapper.settled()
        with swapper.use() as (_, thing):
            assert thing == ["old"]
        assert change_of(swapper.state()) == "OSError: no weights there"
        assert loader.closed == ["new"]
        await swapper.replace({"m": "old"})
        await swapper.settled()
        assert change_of(swapper.state()) == "done" and loader.loaded == ["old", "new"]

    story(told)


def test_a_later_change_takes_the_place_of_one_that_is_loading_and_loads_after_it():
    async def told(swapper, loader):
        await swapper.replace({"m": "old"})
        await swapper.replace({"m": "slow"})
        await asyncio.sleep(0.05)
        await swapper.replace({"m": "newest"})
        await asyncio.sleep(0.1)
        assert loader.loaded == ["old"]  # two loads at once would undo each other's changes of the process
        loader.go.set()
        await swapper.settled()
        assert loader.loaded == ["old", "slow", "newest"]
        while "slow" not in loader.closed:
            await asyncio.sleep(0.01)
        with swapper.use() as (_, thing):
            assert thing == ["newest"]

    story(told)


def test_of_many_changes_during_a_load_only_the_last_is_loaded():
    async def told(swapper, loader):
        await swapper.replace({"m": "old"})
        await swapper.replace({"m": "slow"})
        await asyncio.sleep(0.05)
        for name in ("a", "b", "c", "last"):
            await swapper.replace({"m": name})
            await asyncio.sleep(0)
        loader.go.set()
        await swapper.settled()
        assert loader.loaded == ["old", "slow", "last"]
        async with asyncio.timeout(10):
            while len(loader.closed) < 2:
                await asyncio.sleep(0.01)
        assert sorted(loader.closed) == ["old", "slow"]

    story(told)


def test_the_same_change_again_goes_on_with_what_is_loading():
    async def told(swapper, loader):
        await swapper.replace({"m": "old"})
        for _ in range(2):
            await swapper.replace({"m": "slow"})
            await asyncio.sleep(0.05)
        loader.go.set()
        await swapper.settled()
        assert (loader.loaded, loader.closed) == (["old", "slow"], ["old"])

    story(told)


def test_what_is_looked_after_stays_open():
    async def told(swapper, loader):
        await swapper.replace({"one": "a", "other": "b", "again": "a"})
        with swapper.use_all() as things:
            assert things == [["a"], ["b"]]
            await swapper.replace({"one": "c"})
            await swapper.settled()
            assert loader.closed == []
        assert sorted(loader.closed) == ["a", "b"]

    story(told)


def test_the_first_load_fails_loudly():
    async def told(swapper, loader):
        with pytest.raises(OSError):
            await swapper.replace({"m": "broken"})
        with pytest.raises(ValueError):
            await swapper.replace({})

    story(told)
