"""Child programs for process tests, as command lines. Python without site takes 15 ms to start."""

import shlex
import sys

# An HTTP server that is nothing but a socket. Options: status=503, ready_after=0.3 (503 until then), hang, bare,
# ignore_term, exit_after=0.1 (with code 7), body=... . `--port` comes last.
_SERVER = """
import os, signal, socket, sys, time
options = dict(part.partition("=")[::2] for part in sys.argv[1:-2])
port = int(sys.argv[-1])
began = time.monotonic()
if "ignore_term" in options:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "slow_term" in options:
    def slowly(*_):
        time.sleep(float(options["slow_term"]))
        print("cleaned up", flush=True)
        os._exit(0)
    signal.signal(signal.SIGTERM, slowly)
if "bind_after" in options:
    time.sleep(float(options["bind_after"]))
if "exit_after" in options:
    signal.signal(signal.SIGALRM, lambda *_: os._exit(7))
    signal.setitimer(signal.ITIMER_REAL, float(options["exit_after"]))
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("127.0.0.1", port))
server.listen(64)
print("listening", flush=True)
kept = []
while True:
    client, _ = server.accept()
    kept.append(client)
    if "hang" in options:
        continue
    request = client.recv(65536).decode()
    print(request.split("\\r\\n")[0], flush=True)
    for name in options.get("show", "").split(","):
        print(f"{name}={os.environ.get(name)}", flush=True)
    status = options.get("status", "200")
    if time.monotonic() - began < float(options.get("ready_after", 0)):
        status = "503"
    head = f"HTTP/1.1 {status} X\\r\\nContent-Length: 2\\r\\nLocation: /elsewhere\\r\\n\\r\\nok"
    try:
        client.sendall(head.encode())
    except OSError:
        pass
    kept.pop().close()
"""


def python(script: str, *words: str) -> str:
    """A command that runs a script without site."""
    return " ".join([sys.executable, "-ISE", "-c", shlex.quote(script), *map(shlex.quote, words)])


def server(*options: str, port: str = "${PORT}") -> str:
    """A command that serves HTTP on the port."""
    words = [sys.executable, "-SE", "-c", shlex.quote(_SERVER), *map(shlex.quote, options), "--port", port]
    return " ".join(words)


def sh(script: str) -> str:
    """A command that runs a shell script."""
    return f"sh -c {shlex.quote(script)}"
