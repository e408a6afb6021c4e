"""Send malformed requests to `edgeemo serve`: no answer may be a 5xx other than 503, and the server must live.

python benchmarks/serve_fuzz.py [--count N] [--seed S] [--schemathesis EXAMPLES]

Writes benchmarks/results/serve/fuzz.json. Each request is made from one of KINDS by a random number that depends on
--seed alone: damaged images of real files, forms, headers, lengths, chunks, request lines, queries, and frames of
WebSockets, as raw bytes over a socket, from CONNECTIONS clients at once. After every thousand a good request must be
answered with 200. --schemathesis also runs that tool, if it is installed, on the server's own OpenAPI description.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.report.table import Table

OUT = Path(__file__).parent / "results" / "serve" / "fuzz.json"
FIXTURES = Path(__file__).parents[1] / "hosts" / "fixtures"
SAMPLES = [FIXTURES / "ready" / "upright-input.png", FIXTURES / "ready" / "upright.png"]
ROUTES = ("/v1/predict", "/v1/crop", "/v1/predict/batch", "/v1/stream", "/v1/card", "/health", "/metrics", "/", "/x")
CONNECTIONS = 64
WAIT = 8.0  # seconds for an answer; longer than the server's own limit
WORDS = (b"", b"\0", b"-1", b"%00", b"a" * 300, b"\xff\xfe", b"few", b"many", b"1e999", b"{}", b"../..", b"\r\n", b"'")


def main() -> None:
    """Fuzz, write the result and print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--schemathesis", type=int, default=0, metavar="EXAMPLES")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    rows, facts = fuzz(given.count, given.seed, given.schemathesis)
    settings = {"count": given.count, "seed": given.seed, "connections": CONNECTIONS}
    result = Measurement(header=make_header(), script="serve_fuzz", settings=settings, rows=rows, facts=facts)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    files.write(result, given.out)
    print(json.dumps([*rows, facts], indent=1))
    if facts["failures"]:
        sys.exit(1)


def fuzz(count: int, seed: int, examples: int = 0) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a row per kind of request, with the statuses that came, and what failed."""
    command = [sys.executable, "-m", "edgeemo", "--quiet", "serve", "nano", "--port", "0", "--timeout", "0.5"]
    server = subprocess.Popen([*command, "--max-bytes", "300000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if server.stdout is None:
        raise RuntimeError
    url = server.stdout.readline().decode().split()[-1]
    try:
        rows, failures = asyncio.run(Fuzzer(url, seed).run(count))
        facts: dict[str, Any] = {"failures": failures}
        if examples:
            facts["schemathesis"] = run_schemathesis(url, examples)
        alive = server.poll() is None
    finally:
        server.terminate()
        _, log = server.communicate(timeout=60)
    tracebacks = log.decode(errors="replace").count("Traceback")
    facts |= {"alive": alive, "exit_code": server.returncode, "tracebacks": tracebacks}
    if tracebacks or not alive or server.returncode:
        facts["failures"] = [*facts["failures"], log.decode(errors="replace")[-2000:]]
    return rows, facts


class Fuzzer:
    """Sends requests to a server and counts what comes back."""

    def __init__(self, url: str, seed: int) -> None:
        address = urlsplit(url)
        self._host, self._port = str(address.hostname), address.port
        self._seed = seed
        self._next = 0
        self._statuses: dict[str, Counter[str]] = {name: Counter() for name in KINDS}
        self._failures: list[str] = []

    async def run(self, count: int) -> tuple[list[dict[str, Any]], list[str]]:
        """Send so many requests; return a row per kind, and descriptions of failures."""
        await asyncio.gather(*(self._send_many(count) for _ in range(CONNECTIONS)))
        rows = [
            {"kind": name, "requests": sum(seen.values()), "statuses": dict(sorted(seen.items()))}
            for name, seen in self._statuses.items()
        ]
        return rows, self._failures

    async def _send_many(self, count: int) -> None:
        while self._next < count and len(self._failures) < 20:
            number, self._next = self._next, self._next + 1
            chance = random.Random(f"{self._seed}-{number}")
            name = chance.choice(list(KINDS))
            request = KINDS[name](chance)
            status = await self._exchange(request)
            self._statuses[name][status] += 1
            if status.startswith("5") and status != "503":
                self._failures.append(f"request {number} ({name}): {status}: {request[:300]!r}")
            if number % 1000 == 999:
                await self._check_alive(number)

    async def _check_alive(self, number: int) -> None:
        good = make_request("/v1/crop", SAMPLES[0].read_bytes())
        for _ in range(20):  # the queue may be full
            status = await self._exchange(good)
            if status not in ("429", "503"):
                break
            await asyncio.sleep(0.1)
        if status != "200":
            self._failures.append(f"a good request after {number} was answered with {status}")

    async def _exchange(self, request: bytes) -> str:
        """Send bytes; return the status of the first answer, which of an incomplete request is that of its time-out."""
        try:
            reader, writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            return "refused"
        try:
            writer.write(request)
            head = await asyncio.wait_for(reader.read(4096), WAIT)
            if head.startswith(b"HTTP/1.1 101") and head.endswith(b"\r\n\r\n"):  # nothing came with it
                await asyncio.wait_for(reader.read(4096), WAIT)
            found = re.match(rb"HTTP/1\.1 (\d{3})", head)
            return found[1].decode() if found else "closed"
        except (OSError, asyncio.TimeoutError) as error:
            return "silent" if isinstance(error, asyncio.TimeoutError) else "closed"
        finally:
            writer.close()


def make_request(path: str, body: bytes = b"", *lines: bytes, method: bytes = b"POST") -> bytes:
    """Return a well-formed request, with further header lines."""
    head = [method + b" " + path.encode() + b" HTTP/1.1", b"Host: 127.0.0.1", b"Connection: close"]
    return b"\r\n".join([*head, b"Content-Length: %d" % len(body), *lines, b"", body])


def damage(content: bytes, chance: random.Random) -> bytes:
    """Return bytes with some changed, cut, repeated or removed."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(5)
        if kind == 0:
            data[at : at + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            del data[at : at + chance.randint(1, 64)]
        elif kind == 2:
            data[at:at] = data[at : at + chance.randint(1, 64)]
        elif kind == 3:
            data[at : at + 4] = struct.pack(">I", chance.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, chance.getrandbits(32))))
        else:
            del data[at:]
    return bytes(data)


def make_image(chance: random.Random) -> bytes:
    """Return a damaged image file, or its damaged beginning."""
    return damage(chance.choice(SAMPLES).read_bytes(), chance)


def fuzz_image(chance: random.Random) -> bytes:
    """Post a damaged image."""
    return make_request(chance.choice(ROUTES[:2]), make_image(chance))


def fuzz_noise(chance: random.Random) -> bytes:
    """Post random bytes after the first bytes of an image format."""
    magic = chance.choice(
        (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x10\0\0\0WEBP", b"BM", b"", b"GIF89a", b"<svg")
    )
    return make_request(chance.choice(ROUTES[:2]), magic + chance.randbytes(chance.randint(0, 400)))


def fuzz_form(chance: random.Random) -> bytes:
    """Post a form that is damaged, or whose Content-Type is."""
    boundary = chance.choice((b"b", b"", b"--", b"a" * 80, b'"q"', b"\xff"))
    part = b'Content-Disposition: form-data; name="a"; filename="%s"\r\n\r\n' % chance.choice(WORDS)
    parts = (b"--" + boundary + b"\r\n" + part + make_image(chance) + b"\r\n" for _ in range(chance.randint(0, 5)))
    body = b"".join(parts) + b"--" + boundary + b"--\r\n"
    kind = b"Content-Type: multipart/form-data; boundary=" + boundary
    body = damage(body, chance) if chance.random() < 0.7 else body
    return make_request(chance.choice(ROUTES[:3]), body, damage(kind, chance) if chance.random() < 0.2 else kind)


def fuzz_headers(chance: random.Random) -> bytes:
    """Send odd header lines."""
    names = (b"Host", b"Origin", b"Authorization", b"X-Request-ID", b"Expect", b"Content-Type", b"Accept", b"Range")
    names += (b"Transfer-Encoding", b"Content-Encoding", b"Upgrade", b"Connection", b"Cookie", chance.randbytes(5), b"")
    lines = [chance.choice(names) + b": " + chance.choice((*WORDS, chance.randbytes(20))) for _ in range(4)]
    path = chance.choice(ROUTES)
    return make_request(path, b"x", *lines, method=chance.choice((b"GET", b"POST", b"OPTIONS", b"HEAD")))


def fuzz_length(chance: random.Random) -> bytes:
    """Say another length than that of the body, or none, or two."""
    length = chance.choice((b"0", b"1", b"-1", b"99999999", b"1e3", b"0x10", b"", b"5, 6", b"9" * 40, b"300001"))
    head = b"POST " + chance.choice(ROUTES).encode() + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    twice = b"Content-Length: 3\r\n" if chance.random() < 0.3 else b""
    return head + twice + b"Content-Length: " + length + b"\r\n\r\n" + make_image(chance)


def fuzz_chunks(chance: random.Random) -> bytes:
    """Send a body in chunks whose sizes or ends are wrong."""
    head = b"POST " + chance.choice(ROUTES[:3]).encode() + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    body = b""
    for _ in range(chance.randint(0, 4)):
        data = make_image(chance)[:500]
        body += chance.choice((b"%x" % len(data), b"%x" % (len(data) + 1), b"zz", b"-1", b"f" * 20)) + b"\r\n" + data
        body += chance.choice((b"\r\n", b"\r\n", b"\n", b""))
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + body + chance.choice((b"0\r\n\r\n", b"0\r\n", b""))


def fuzz_line(chance: random.Random) -> bytes:
    """Send a damaged request as a whole."""
    return damage(make_request(chance.choice(ROUTES), b"body"), chance)


def fuzz_query(chance: random.Random) -> bytes:
    """Send odd parameters, paths and methods."""
    pairs = (chance.choice(("faces", "augment", "width", "x", "")) + "=" + quote(chance) for _ in range(3))
    path = chance.choice(ROUTES) + chance.choice(("", "/", "//", "/../x", "%2f", ";a")) + "?" + "&".join(pairs)
    method = chance.choice((b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"TRACE", b"CONNECT", b"FOO"))
    return make_request(path, make_image(chance)[:100], method=method)


def quote(chance: random.Random) -> str:
    """Return a value of a query."""
    return "".join(f"%{byte:02x}" for byte in chance.choice((*WORDS, chance.randbytes(8))))


def fuzz_stream(chance: random.Random) -> bytes:
    """Open a WebSocket, perhaps wrongly, and send frames, most of them damaged."""
    query = chance.choice(
        ("", "?width=16&height=16", "?width=16&height=16&color=gray", "?width=1", "?faces=x", "?color=")
    )
    lines = [b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13"]
    lines.append(b"Sec-WebSocket-Key: " + chance.choice((b"dGhlIHNhbXBsZSBub25jZQ==", b"x", b"")))
    head = b"\r\n".join([b"GET /v1/stream" + query.encode() + b" HTTP/1.1", b"Host: 127.0.0.1", *lines, b"", b""])
    frames = b"".join(make_frame(chance) for _ in range(chance.randint(1, 4)))
    return head + (damage(frames, chance) if chance.random() < 0.5 else frames) + make_frame(chance, opcode=8)


def make_frame(chance: random.Random, opcode: int | None = None) -> bytes:
    """Return a masked frame of a WebSocket (RFC 6455) of any kind."""
    code = chance.choice((0, 1, 2, 2, 2, 3, 8, 9, 10)) if opcode is None else opcode
    content = b"\x03\xe8" if opcode == 8 else chance.choice((make_image(chance)[:1000], chance.randbytes(256), b""))
    mask = chance.randbytes(4)
    size = bytes([0x80 | len(content)]) if len(content) < 126 else b"\xfe" + struct.pack(">H", len(content))
    return bytes([0x80 | code]) + size + mask + bytes(byte ^ mask[k % 4] for k, byte in enumerate(content))


KINDS: dict[str, Callable[[random.Random], bytes]] = {
    "damaged image": fuzz_image,
    "noise": fuzz_noise,
    "form": fuzz_form,
    "headers": fuzz_headers,
    "length": fuzz_length,
    "chunks": fuzz_chunks,
    "request line": fuzz_line,
    "query": fuzz_query,
    "websocket": fuzz_stream,
}


def run_schemathesis(url: str, examples: int) -> dict[str, Any]:
    """Return what schemathesis found on the server's own description; it looks for 5xx answers."""
    tool = os.environ.get("SCHEMATHESIS") or shutil.which("schemathesis")
    if tool is None:
        return {"skipped": "schemathesis is not installed; SCHEMATHESIS may name its file"}
    command = [tool, "run", f"{url}/openapi.json", "--checks", "not_a_server_error", "--max-examples", str(examples)]
    with tempfile.TemporaryDirectory() as folder:  # in which it leaves a cache
        done = subprocess.run([*command, "--no-color"], capture_output=True, text=True, check=False, cwd=folder)
    generated = re.findall(r"(\d+) generated", done.stdout)
    return {"exit_code": done.returncode, "summary": generated, "tail": done.stdout.splitlines()[-12:]}


def table(result: Measurement) -> Table:
    """Make a table with a row per kind of request."""

    def list_statuses(row: dict[str, Any]) -> str:
        return ", ".join(f"{name}: {count:,}" for name, count in row["statuses"].items())

    rows = [(row["kind"], f"{row['requests']:,}", list_statuses(row)) for row in result.rows]
    facts = result.facts
    note = f"{len(facts['failures'])} failures; {facts['tracebacks']} tracebacks in the server's log."
    if "schemathesis" in facts:
        generated = " and ".join(facts["schemathesis"].get("summary", ()))
        note += f" Schemathesis: {generated or 'no'} requests, exit code {facts['schemathesis'].get('exit_code')}."
    return Table("fuzzing", ("kind", "requests", "statuses"), rows, note, align="lrl")


if __name__ == "__main__":
    main()
