"""The gateway's calls: repeated where a replica went away, refused where the queue is full, never too late."""

import asyncio
import time
from contextlib import suppress

import pytest
from ray.exceptions import ActorDiedError, NodeDiedError, OutOfMemoryError, RayActorError, RaySystemError
from ray.serve.exceptions import BackPressureError, ReplicaUnavailableError

from ranker.serving import calls
from ranker.serving.batching import QueueFullError
from ranker.serving.calls import Backend, Scored
from ranker.serving.errors import ApiError
from ranker.serving.overload import ASK_S, FULL_S, Overload
from ranker.serving.trace import begin, end


class Method:
    def __init__(self, function):
        self.remote = function


class Reranker:
    """Each call does the next of what it was told: raise an error, sleep some seconds, or answer."""

    def __init__(self, *turns):
        self.turns, self.seconds_left = list(turns), []
        self.score, self.describe = Method(self._score), Method(self._describe)

    async def _score(self, query, documents, within_s=None, **wishes):
        self.seconds_left.append(within_s)
        turn = self.turns.pop(0) if self.turns else None
        if isinstance(turn, BaseException):
            raise turn
        if isinstance(turn, float):
            await asyncio.sleep(turn)
        return Scored([1.0] * len(documents), 3, 0.3, queued=0.1, tokenised=0.02, inferred=0.18)

    async def _describe(self):
        return (await self._score("", [""])).tokens


@pytest.fixture(autouse=True)
def short_pause(monkeypatch):
    monkeypatch.setattr(calls, "PAUSE_S", 0.001)


def ask(reranker: Reranker, deadline_s: float = 5.0, **arguments):
    return asyncio.run(Backend(reranker, None, deadline_s, **arguments).score("q", ["d"]))


def refusal(reranker: Reranker, **arguments) -> ApiError:
    with pytest.raises(ApiError) as caught:
        ask(reranker, **arguments)
    return caught.value


@pytest.mark.parametrize(
    "gone",
    [
        RayActorError(), ActorDiedError(), ReplicaUnavailableError("r1"), NodeDiedError("node"),
        RaySystemError("the raylet was killed"), OutOfMemoryError("the memory monitor killed it"),
        asyncio.CancelledError(),
    ],
)  # fmt: skip
def test_a_replica_that_dies_under_a_request_is_not_seen(gone: BaseException):
    retried = []
    assert ask(Reranker(gone, gone), retried=retried.append).logits == [1.0]
    assert retried == ["reranker", "reranker"]


def test_a_request_that_kills_every_replica_ends_after_three():
    reranker = Reranker(*[RayActorError()] * 9)
    error = refusal(reranker)
    assert (error.status_code, error.headers, len(reranker.turns)) == (503, {"retry-after": "1"}, 6)


def test_the_second_try_has_what_is_left_of_the_time():
    class Slow(Reranker):
        async def _score(self, query, documents, within_s=None, **wishes):
            await asyncio.sleep(0.1)
            return await super()._score(query, documents, within_s, **wishes)

    reranker = Slow(RayActorError())
    ask(reranker, deadline_s=1.0)
    first, second = reranker.seconds_left
    assert first == pytest.approx(1.0, abs=0.05) and second <= 0.9
    late = Slow(RayActorError(), 5.0)
    start = time.perf_counter()
    assert refusal(late, deadline_s=0.3).status_code == 504
    assert time.perf_counter() - start < 1.5


class Retriever:
    """Answers after some seconds, or refuses."""

    def __init__(self, seconds: float = 0.0, error: Exception | None = None):
        self.seconds, self.error = seconds, error
        self.retrieve = Method(self._retrieve)

    async def _retrieve(self, query, num_candidates):
        await asyncio.sleep(self.seconds)
        if self.error:
            raise self.error
        return []


def test_all_calls_of_a_request_share_its_deadline_and_those_of_a_late_one_are_not_made():
    async def story(seconds: float):
        trace, token = begin()
        try:
            trace.began -= seconds  # read and parsed for so long
            reranker = Reranker(5.0)
            backend = Backend(reranker, Retriever(0.2), 1.0)
            start = time.perf_counter()
            with pytest.raises(ApiError) as caught:
                await backend.retrieve("q", 5)
                await backend.score("q", ["d"])
            return caught.value.status_code, time.perf_counter() - start, reranker.seconds_left
        finally:
            end(token)

    status, took, [left] = asyncio.run(story(0.3))
    assert status == 504 and took == pytest.approx(0.7, abs=0.2) and left == pytest.approx(0.5, abs=0.1)
    status, took, asked = asyncio.run(story(2.0))
    assert (status, asked) == (504, []) and took < 0.1


def test_a_full_retriever_says_nothing_of_the_rerankers_queue():
    full = BackPressureError(num_queued_requests=1, max_queued_requests=1)

    async def story():
        backend = Backend(Reranker(full), Retriever(error=full), 5.0)
        seen = []
        for ask_one in (backend.retrieve("q", 5), backend.score("q", ["d"])):
            with suppress(ApiError):
                await ask_one
            seen.append(backend.overload.admits())
        backend._retriever = Retriever()
        await backend.retrieve("q", 5)
        return [*seen, backend.overload.admits()]

    assert asyncio.run(story()) == [True, False, False]


def test_a_full_queue_is_told_at_once_and_not_asked_again():
    reranker = Reranker(BackPressureError(num_queued_requests=1, max_queued_requests=1))
    assert refusal(reranker).status_code == 429
    assert len(reranker.seconds_left) == 1


@pytest.mark.parametrize(("wait", "said"), [(4.6, "2"), (600.0, "30"), (2.1, "1")])
def test_retry_after_is_when_there_is_room_again(wait: float, said: str):
    error = refusal(Reranker(QueueFullError(wait)), deadline_s=5.0)
    assert (error.status_code, error.headers) == (429, {"retry-after": said})


def test_a_full_queue_is_asked_again_by_one_request_an_answer():
    full = BackPressureError(num_queued_requests=1, max_queued_requests=1)

    async def story():
        backend = Backend(Reranker(full, None, full), None, 5.0)
        seen = [backend.overload.admits()]
        for _ in range(3):
            with suppress(ApiError):
                await backend.score("q", ["d"])
            seen.append((backend.overload.admits(), backend.overload.admits()))
        return seen

    assert asyncio.run(story()) == [True, (False, False), (True, False), (False, False)]


def test_what_the_batcher_refuses_teaches_about_bodies_as_long_on_the_same_route():
    def after(error: QueueFullError) -> list[bool]:
        backend = Backend(Reranker(error), None, 5.0)

        async def story() -> None:
            trace, token = begin()
            trace.route, trace.body_bytes = "/rerank", 1000
            with pytest.raises(ApiError):
                await backend.score("q", ["d"])
            end(token)

        asyncio.run(story())
        asked = [("/rerank", 1000), ("/rerank", 5000), ("/rerank", 999), ("/search", 1000), ("/rerank", None)]
        return [backend.overload.admits(*one) for one in asked]

    assert after(QueueFullError(9.0)) == [False, False, True, True, True]
    # Another model may have room.
    assert after(QueueFullError(9.0, for_all=False)) == [True] * 5


def test_a_full_queue_is_asked_now_and_then_until_it_refuses_nothing_more():
    clock = [10.0]
    memory = Overload(lambda: clock[0])

    def admitted(many: int, step: float = 0.001) -> int:
        count = 0
        for _ in range(many):
            clock[0] += step
            count += memory.admits("/rerank", 700)
        return count

    assert admitted(10) == 10
    memory.refused(4.0, "/rerank", 700)
    assert memory.wait_s == 4.0
    step = ASK_S / 100
    assert admitted(90, step) == 0
    assert admitted(220, step) == 3  # one each ASK_S
    memory.answered()
    memory.answered()
    assert admitted(10, step) == 2
    clock[0] += FULL_S  # nothing was refused for so long
    assert admitted(100) == 100
    # What was learnt then is forgotten: a longer body is refused, this one is not.
    memory.refused(4.0, "/rerank", 900)
    assert admitted(100) == 100
    # Without a length nothing is learnt, though the queue is still known to be full.
    memory.refused(4.0, "/rerank", None)
    assert admitted(100) == 100
    clock[0] += ASK_S
    assert [memory.admits("/rerank", 900) for _ in range(3)] == [True, False, False]
    memory.refused()  # Ray's own queue: whatever comes
    assert not memory.admits("/rerank", 1) and not memory.admits("/search", None)


def test_answers_before_a_queue_was_full_make_no_room_in_it():
    memory = Overload(lambda: 5.0)
    for _ in range(100):
        memory.answered()
    memory.refused()
    assert not memory.admits()


def test_a_client_that_goes_away_takes_its_call_along():
    cancelled = []

    class Call:
        def __await__(self):
            return asyncio.sleep(5).__await__()

        def cancel(self):
            cancelled.append(True)

    class Handle:
        score = Method(lambda *args: Call())

    async def story():
        task = asyncio.create_task(Backend(Handle(), None, 5.0).score("q", ["d"]))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(story())
    assert cancelled == [True]


def test_a_busy_deployment_is_ready_and_a_missing_one_is_not():
    full = BackPressureError(num_queued_requests=1, max_queued_requests=1)
    asyncio.run(Backend(Reranker(full), None, 5.0).prove())
    with pytest.raises(ApiError) as caught:
        asyncio.run(Backend(Reranker(*[RayActorError()] * 3), None, 5.0).prove())
    assert caught.value.status_code == 503

    async def proven_by_an_answer():
        backend = Backend(Reranker(None, RayActorError()), None, 5.0)
        await backend.score("q", ["d"])
        await backend.prove()  # and not asked

    asyncio.run(proven_by_an_answer())


def test_where_the_time_went_is_noted():
    trace, token = begin()
    try:
        ask(Reranker(RayActorError()))
    finally:
        end(token)
    assert trace.times == {"queue": 0.1, "tokenise": 0.02, "inference": 0.18}
    assert (trace.documents, trace.retries) == (1, 1)
