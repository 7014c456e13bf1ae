"""The baseline of a deployment: the same bytes through bare sockets, from a mapped file to a file.

    python _raw_sockets.py BYTES CONNECTIONS plain|tls

A process sends, another receives, as many connections at once as there are nodes. Prints seconds a direction.
"""

import mmap
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

PIECE = 2**20


def main() -> None:
    size, connections, mode = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        certificate(where)
        write_random(where / "source", size)
        seconds = [transfer(where, size, connections, tls=mode == "tls") for _ in range(3)]
    print(sorted(seconds)[1])


def write_random(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for start in range(0, size, PIECE):
            file.write(os.urandom(min(PIECE, size - start)))


def certificate(where: Path) -> None:
    subject = ["-subj", "/CN=localhost", "-days", "2", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    files = ["-keyout", str(where / "key.pem"), "-out", str(where / "cert.pem")]
    subprocess.run(["openssl", "req", "-x509", *subject, *files], check=True, capture_output=True)


def transfer(where: Path, size: int, connections: int, *, tls: bool) -> float:
    """Send the file over every connection at once; return the seconds until all of it is in files."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = os.fork()
        if child == 0:
            try:
                run_all([lambda: send(listener.getsockname(), where, tls=tls)] * connections)
            finally:
                os._exit(0)
        accepted = [listener.accept()[0] for _ in range(connections)]
        begun = time.perf_counter()
        run_all([lambda n=n, sock=sock: receive(sock, where, n, size, tls=tls) for n, sock in enumerate(accepted)])
        seconds = time.perf_counter() - begun
        os.waitpid(child, 0)
    return seconds


def run_all(jobs: list) -> None:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def send(address: tuple[str, int], where: Path, *, tls: bool) -> None:
    sock = socket.create_connection(address)
    if tls:
        context = ssl.create_default_context(cafile=where / "cert.pem")
        context.check_hostname = False
        sock = context.wrap_socket(sock)
    with sock, (where / "source").open("rb") as file:
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        for start in range(0, len(view), PIECE):
            sock.sendall(view[start : start + PIECE])
        sock.recv(1)  # a socket closed with something unread in it would take back what it sent


def receive(sock: socket.socket, where: Path, number: int, size: int, *, tls: bool) -> None:
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(where / "cert.pem", where / "key.pem")
        sock = context.wrap_socket(sock, server_side=True)
    room, got = memoryview(bytearray(PIECE)), 0
    with sock, (where / f"received-{number}").open("wb", buffering=0) as file:
        while got < size:
            count = sock.recv_into(room)
            if not count:
                raise EOFError(f"expected {size} bytes, got {got}")
            file.write(room[:count])
            got += count
        sock.sendall(b".")


if __name__ == "__main__":
    main()
