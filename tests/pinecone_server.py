"""A Pinecone of one index on loopback: the routes, limits and errors of the service that its own client meets.

From the service's reference: a key in the header, a namespace that exists once it holds a vector, cosine or dotproduct
scores, metadata filters, 1000 vectors and 2 MB a request, top_k up to 10,000, lists of 100 ids with a token.
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import numpy as np

KEY, INDEX, PAGE = "pc-test-key", "documents", 100


class RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class PineconeServer:
    """Args: dimension, metric: of the one index. lag: seconds after which what was written is read; the service's own
    are some. spaces: namespace -> id -> (values, metadata), as written.
    """

    def __init__(self, dimension: int, metric: str = "dotproduct", lag: float = 0.0) -> None:
        self.dimension, self.metric, self.lag = dimension, metric, lag
        self.spaces: dict[str, dict[str, tuple[list[float], dict]]] = {}
        self._past: list[tuple[float, dict]] = [(0.0, {})]  # what was there, and since when
        self.calls: list[str] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, query: dict[str, list[str]], body: dict) -> dict:
        if path == f"/indexes/{INDEX}":
            return self._described()
        if path.startswith("/indexes/"):
            raise RefusedError(404, f"Resource {path[9:]} not found")
        routes = {
            "/vectors/upsert": self._upsert, "/query": self._query, "/vectors/delete": self._delete,
            "/describe_index_stats": self._stats,
        }  # fmt: skip
        with self._lock:
            if path in routes:
                return routes[path](body)
            if path == "/vectors/fetch":
                return self._fetch(query)
            if path == "/vectors/list":
                return self._list(query)
        raise RefusedError(404, f"no route {path}")

    def _described(self) -> dict:
        # As the API of 2026-07 says it: an index of plain vectors is one reserved field of a schema.
        field = {"type": "dense_vector", "dimension": self.dimension, "metric": self.metric}
        return {
            "name": INDEX, "host": self.url, "status": {"ready": True, "state": "Ready"},
            "schema": {"fields": {"_values": field}}, "deletion_protection": "disabled", "tags": None,
            "deployment": {"deployment_type": "managed", "cloud": "aws", "region": "us-east-1"},
        }  # fmt: skip

    def _upsert(self, body: dict) -> dict:
        vectors = body["vectors"]
        if not 1 <= len(vectors) <= 1000:
            raise RefusedError(400, f"{len(vectors)} vectors in one request; the limit is 1000")
        for vector in vectors:
            if not vector["id"].isascii() or not 1 <= len(vector["id"]) <= 512:
                raise RefusedError(400, f"Vector ID {vector['id']!r} must be ASCII of 1 to 512 characters")
            if len(vector["values"]) != self.dimension:
                raise RefusedError(
                    400, f"Vector dimension {len(vector['values'])} does not match the dimension of the index "
                    f"{self.dimension}",
                )  # fmt: skip
        space = self.spaces.setdefault(body.get("namespace", ""), {})
        space.update({one["id"]: (one["values"], one.get("metadata") or {}) for one in vectors})
        self._note()
        return {"upsertedCount": len(vectors)}

    def _query(self, body: dict) -> dict:
        top = body["topK"]
        if not 1 <= top <= 10_000:
            raise RefusedError(400, f"topK {top} must be between 1 and 10000")
        space = self._seen().get(body.get("namespace", ""), {})
        kept = {one: values for one, (values, about) in space.items() if fits(about, body.get("filter") or {})}
        names, matrix = list(kept), np.array(list(kept.values()), dtype=np.float32).reshape(len(kept), self.dimension)
        asked = np.array(body["vector"], dtype=np.float32)
        if len(asked) != self.dimension:
            raise RefusedError(400, f"Vector dimension {len(asked)} does not match the dimension of the index")
        scores = matrix @ asked
        if self.metric == "cosine":
            scores /= np.linalg.norm(matrix, axis=1) * np.linalg.norm(asked)
        best = np.argsort(-scores, kind="stable")[:top]
        matches = [{"id": names[row], "score": float(scores[row]), "values": []} for row in best]
        return {"matches": matches, "namespace": body.get("namespace", ""), "usage": {"readUnits": 1}}

    def _delete(self, body: dict) -> dict:
        name = body.get("namespace", "")
        if name not in self.spaces:
            raise RefusedError(404, "Namespace not found")
        for one in list(self.spaces[name]) if body.get("deleteAll") else body["ids"]:
            self.spaces[name].pop(one, None)
        if not self.spaces[name]:
            del self.spaces[name]
        self._note()
        return {}

    def _note(self) -> None:
        if self.lag:
            self._past.append((time.monotonic(), {name: dict(space) for name, space in self.spaces.items()}))

    def _seen(self) -> dict[str, dict[str, tuple[list[float], dict]]]:
        until = time.monotonic() - self.lag
        return next(spaces for since, spaces in reversed(self._past) if since <= until) if self.lag else self.spaces

    def _stats(self, body: dict) -> dict:
        sizes = {name: {"vectorCount": len(space)} for name, space in self._seen().items()}
        total = sum(size["vectorCount"] for size in sizes.values())
        about = {"metric": self.metric, "vectorType": "dense", "indexFullness": 0}
        return {"namespaces": sizes, "dimension": self.dimension, "totalVectorCount": total, **about}

    def _fetch(self, query: dict[str, list[str]]) -> dict:
        name = query.get("namespace", [""])[0]
        space = self._seen().get(name, {})
        found = {one: {"id": one, "values": space[one][0]} for one in query["ids"] if one in space}
        return {"vectors": found, "namespace": name, "usage": {"readUnits": 1}}

    def _list(self, query: dict[str, list[str]]) -> dict:
        name = query.get("namespace", [""])[0]
        ids = sorted(self._seen().get(name, {}))
        start = int(query.get("paginationToken", ["0"])[0])
        page = {"vectors": [{"id": one} for one in ids[start : start + PAGE]], "namespace": name}
        more = {"pagination": {"next": str(start + PAGE)}} if start + PAGE < len(ids) else {}
        return {**page, **more, "usage": {"readUnits": 1}}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                size = int(self.headers.get("content-length") or 0)
                raw, address = self.rfile.read(size), urlparse(self.path)
                server.calls.append(address.path)
                try:
                    if self.headers.get("api-key") != KEY:
                        raise RefusedError(401, "Invalid API Key")
                    if size > 2 * 2**20:
                        raise RefusedError(413, "Request size exceeds the limit of 2 MB")
                    status, answer = 200, server.answer(address.path, parse_qs(address.query), json.loads(raw or "{}"))
                except RefusedError as refused:
                    status, answer = refused.status, {"code": 3, "message": str(refused), "details": []}
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None: ...

        return Handler


def fits(about: dict, wanted: dict) -> bool:
    """The part of the filter language that is asked for here; anything else is refused, as there."""
    for field, rule in wanted.items():
        if not isinstance(rule, dict) or set(rule) != {"$in"} or len(rule["$in"]) > 10_000:
            raise RefusedError(400, f"illegal condition for field {field}, got {str(rule)[:80]}")
        if about.get(field) not in rule["$in"]:
            return False
    return True
