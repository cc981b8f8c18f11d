"""Python programs in processes of their own, without the ten seconds in which each imports torch, transformers and Ray.

Run as a script it imports them once. Each line of JSON that it then reads is a program, which it forks: one after the
other, each the leader of a session of its own. It answers with the process id and, at the end, with the exit status.
"""

import importlib
import json
import os
import runpy
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

COSTLY = ("sentence_transformers", "ranker.training.trainer", "ranker.tuning.sweep", "ranker.retrieval.index")


class Child:
    """What ``subprocess.Popen`` is to a process of its own."""

    def __init__(self, pid: int, status: Future[int]) -> None:
        self.pid, self._status = pid, status

    def poll(self) -> int | None:
        return self._status.result() if self._status.done() else None

    def wait(self, timeout: float | None = None) -> int:
        return self._status.result(timeout)


class Forks:
    """Starts programs; one at a time."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._reader = ThreadPoolExecutor(1)

    def start(self, program: Path, arguments: list[str], cwd: Path, log: Path, **environment: str) -> Child:
        """``python program arguments`` in a folder, with what it says in ``log``."""
        assert self._server.stdin is not None
        told = {
            "program": str(program), "arguments": arguments, "cwd": str(cwd), "log": str(log),
            "environment": {**os.environ, **environment},
        }  # fmt: skip
        self._server.stdin.write(json.dumps(told) + "\n")
        self._server.stdin.flush()
        pid = self._reader.submit(self._answer).result(120)
        return Child(pid, self._reader.submit(self._answer))

    def _answer(self) -> int:
        assert self._server.stdout is not None
        return int(self._server.stdout.readline())

    def stop(self) -> None:
        self._server.kill()
        self._server.wait()
        self._reader.shutdown()


def serve() -> dict[str, Any] | None:
    """In a child: what it shall run. In the parent: None, when nobody asks any more."""
    answers = os.dup(1)  # what libraries print on their way does not come between
    os.dup2(2, 1)
    for name in COSTLY:
        importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            os.close(answers)
            return json.loads(line)
        os.write(answers, f"{child}\n".encode())
        _, status = os.waitpid(child, 0)
        os.write(answers, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    return None


def become(told: dict[str, Any]) -> None:
    """Run the program as if Python had been started with it."""
    os.setsid()
    log = os.open(told["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for stream, number in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
        os.dup2(stream, number)
    os.chdir(told["cwd"])
    os.environ.clear()
    os.environ.update(told["environment"])
    sys.argv = [told["program"], *told["arguments"]]
    sys.path.insert(0, str(Path(told["program"]).parent))
    runpy.run_path(told["program"], run_name="__main__")


if __name__ == "__main__" and (told := serve()) is not None:
    become(told)
