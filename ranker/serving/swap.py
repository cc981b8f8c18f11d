"""Things in use by name, replaced by others while requests go on: a model, an index.

What is new is loaded beside what is in use. Only when all of it is there do the names point to it, at once; what was in
use before is closed when its last request has its answer. What cannot be loaded changes nothing.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from ranker.serving.errors import UnknownModelError

log = logging.getLogger(__name__)
T = TypeVar("T")


class _Entry(Generic[T]):
    """A loaded thing and the number of requests that use it."""

    def __init__(self, source: str, thing: T) -> None:
        self.source, self.thing, self.users, self.retired = source, thing, 0, False


def change_of(state: Mapping[str, Any]) -> str:
    """In one word or sentence, what became of the last change: ``done``, ``loading``, or why it was not made."""
    return state["problem"] or ("loading" if state["loading"] else "done")


class Swapper(Generic[T]):
    """Names of things, such as of rerankers.

    Args:
        load: makes the thing of a source, such as a folder; called in a thread, never in two at a time, since libraries
            that load models change things of the whole process meanwhile. close: lets go of one.
    """

    def __init__(self, load: Callable[[str], T], close: Callable[[T], None]) -> None:
        self._load, self._close = load, close
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._named: dict[str, _Entry[T]] = {}
        self._wanted: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None
        self.problem = ""

    async def replace(self, wanted: Mapping[str, str]) -> None:
        """Let these names mean these sources; the first name is the one that is used unsaid.

        The first time this waits until everything is loaded, and raises what fails. Afterwards it returns at once, and
        loading goes on in the background: Ray Serve sends nothing to a replica that is being reconfigured, and ends one
        whose reconfiguration fails, though it could go on with what it has. What is being loaded already goes on.

        Raises:
            ValueError: where nothing is wanted. The first time: whatever ``load`` raises.
        """
        if not wanted:
            raise ValueError("nothing to load was named")
        if self._is_loading() and [*wanted.items()] == [*self._wanted.items()]:
            return
        self._wanted = dict(wanted)
        if not self._named:
            await self._bring(self._wanted)
            return
        if self._task is not None:
            self._task.cancel()
        self._task = asyncio.create_task(self._bring_or_stay(self._wanted))

    @contextmanager
    def use(self, name: str | None = None) -> Iterator[tuple[str, T]]:
        """The name and the thing, which stays open for as long as the block runs.

        Args:
            name: None: the first. Where there is only one, any name means it, since many clients send one of their own.

        Raises:
            UnknownModelError: where there are several, and none of this name.
        """
        if not self._named:
            raise RuntimeError("nothing is loaded: user_config of the deployment names nothing")
        first = next(iter(self._named))
        known = name if name and len(self._named) > 1 else first
        if known not in self._named:
            # Ray logs this; what a request says is not for logs.
            raise UnknownModelError(f"no such model; there are: {', '.join(self._named)}")
        entry = self._named[known]
        with self._open([entry]):
            yield known, entry.thing

    @contextmanager
    def use_all(self) -> Iterator[list[T]]:
        """What is in use, each once, which stays open for as long as the block runs."""
        with self._open(self._entries()):
            yield self.everything()

    def everything(self) -> list[T]:
        """What is in use, each once."""
        return [entry.thing for entry in self._entries()]

    def state(self) -> dict[str, Any]:
        """Names with their sources in use; the sources that are being loaded; why the last change was not made."""
        now = {name: entry.source for name, entry in self._named.items()}
        loading = sorted(set(self._wanted.values()) - set(now.values())) if self._is_loading() else []
        return {"in_use": now, "loading": loading, "problem": self.problem}

    async def settled(self) -> None:
        """When nothing is being loaded any more."""
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])

    def _is_loading(self) -> bool:
        return self._task is not None and not self._task.done()

    async def _bring_or_stay(self, wanted: Mapping[str, str]) -> None:
        try:
            await self._bring(wanted)
        except asyncio.CancelledError:
            raise  # another change came
        except Exception as error:
            self.problem = f"{type(error).__name__}: {error}"
            log.error("still serving %s, since the change failed: %s", self.state()["in_use"], self.problem)

    async def _bring(self, wanted: Mapping[str, str]) -> None:
        self.problem = ""
        ready = {entry.source: entry for entry in self._named.values()}
        fresh: dict[str, _Entry[T]] = {}
        try:
            for source in dict.fromkeys(wanted.values()):
                if source not in ready:
                    fresh[source] = _Entry(source, await self._loaded(source))
        except BaseException:
            for entry in fresh.values():
                self._close(entry.thing)
            raise
        before = set(self._named.values())
        self._named = {name: {**ready, **fresh}[source] for name, source in wanted.items()}
        for entry in before - set(self._named.values()):
            entry.retired = True
            self._close_if_idle(entry)
        log.info("serving %s", self.state()["in_use"])

    async def _loaded(self, source: str) -> T:
        job = self._loader.submit(self._load, source)
        loading = asyncio.wrap_future(job)
        try:
            return await asyncio.shield(loading)
        except asyncio.CancelledError:
            if not job.cancel():  # what has begun cannot be stopped
                loading.add_done_callback(self._drop)
            raise

    def _drop(self, loading: "asyncio.Future[T]") -> None:
        if not loading.cancelled() and loading.exception() is None:
            self._close(loading.result())

    def _entries(self) -> list[_Entry[T]]:
        return [*dict.fromkeys(self._named.values())]

    @contextmanager
    def _open(self, entries: Sequence[_Entry[T]]) -> Iterator[None]:
        for entry in entries:
            entry.users += 1
        try:
            yield
        finally:
            for entry in entries:
                entry.users -= 1
                self._close_if_idle(entry)

    def _close_if_idle(self, entry: _Entry[T]) -> None:
        if entry.retired and not entry.users:
            entry.retired = False
            self._close(entry.thing)
