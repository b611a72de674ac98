"""A server on this machine that sends bytes as a test says, whether they are HTTP or not."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, repeat


@dataclass
class RawServer:
    """url: its address. answers: how many connections were answered."""

    url: str
    answers: list[bytes] = field(default_factory=list)


@contextmanager
def serve_bytes(answer: bytes, without_end: bytes = b"") -> Iterator[RawServer]:
    """Answer each request with ``answer`` and, again and again, with ``without_end`` until the client hangs up.

    ``{url}`` in the answer stands for the server's own address.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    server = RawServer(f"http://127.0.0.1:{listening.getsockname()[1]}")

    def reply(connection: socket.socket) -> None:
        with connection:
            try:
                request = connection.recv(2**16)
                server.answers.append(request)
                for part in chain([answer.replace(b"{url}", server.url.encode())], repeat(without_end)):
                    if not part:
                        break
                    connection.sendall(part)
            except OSError:
                pass  # the client has hung up

    def listen() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:  # closed
                return
            threading.Thread(target=reply, args=(connection,), daemon=True).start()

    threading.Thread(target=listen, daemon=True).start()
    try:
        yield server
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
