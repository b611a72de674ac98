"""A chat-completions server on this machine that answers what it is told to, well or badly."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass(frozen=True)
class ChatReply:
    """What one request is answered with: a chat completion that says ``text``, or else a raw body; ``cut`` closes the
    connection in the middle of it."""

    text: str | None = ""
    status: int = 200
    body: bytes | None = None
    cut: bool = False
    finish_reason: str = "stop"
    refusal: str | None = None

    def content(self, model: str) -> bytes:
        if self.body is not None:
            return self.body
        if self.status != 200:
            return json.dumps({"error": {"message": f"planned failure {self.status}"}}).encode()
        message = {"role": "assistant", "content": self.text, "refusal": self.refusal}
        completion = {
            "id": "chat-1",
            "object": "chat.completion",
            "created": 1,
            "model": f"{model}-as-served",
            "choices": [{"index": 0, "message": message, "finish_reason": self.finish_reason}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 11, "total_tokens": 18},
        }
        return json.dumps(completion).encode()


@dataclass
class ChatServer:
    """Replies are given in turn, the last one again and again. requests: the decoded bodies; headers: theirs."""

    replies: list[ChatReply]
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def chat_server(*replies: ChatReply | str) -> Iterator[ChatServer]:
    """Serve the replies (a text is a chat completion) at ``url`` until the block ends."""
    told = ChatServer([ChatReply(reply) if isinstance(reply, str) else reply for reply in replies])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.requests.append({"path": self.path, **request})
            told.headers.append({name.lower(): value for name, value in self.headers.items()})
            reply = told.replies[min(len(told.requests), len(told.replies)) - 1]
            body = reply.content(request["model"])
            self.send_response(reply.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("retry-after-ms", "1")
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if reply.cut else body)
            self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
