"""`edgeemo serve` under load, beside a plain handler of FastAPI and ONNX Runtime with the same model and detector.

python benchmarks/serve_load.py [--minutes M] [--slice SECONDS] [--rounds N]

Writes benchmarks/results/serve/load.json. CLIENTS clients, in a process of their own, post again and again, each over
one connection. A row says how many requests a second were answered, how long one took, and which statuses came.

steady: M minutes of photos; how much the server's memory has grown since the end of the first tenth. beside: slices of
the load, in which both servers take turns, of photos and of ready crops. slow: SLOW clients that send a byte every two
seconds, while 4 good ones post. stop: SIGTERM under load; how many requests the server says to have received, and how
many answers the clients have got. The plain handler is what a tutorial writes: a function that FastAPI runs in a
thread. cpu_ms is the processor time of the server per request, which other work on the machine hardly changes; on a
busy machine, a server with more threads gets a larger share of the cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.report.table import Table

OUT = Path(__file__).parent / "results" / "serve" / "load.json"
FIXTURES = Path(__file__).parents[1] / "hosts" / "fixtures"
FILES = {"photo": FIXTURES / "pictures" / "one.png", "crop": FIXTURES / "ready" / "large.png"}
PATHS = {"photo": "/v1/predict?augment=false", "crop": "/v1/crop"}
CLIENTS, SLOW = 8, 200
MODEL = "small"


def main() -> None:
    """Measure, write the result and print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--slice", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    rows, facts = measure(given.minutes * 60, given.slice, given.rounds)
    settings = {"minutes": given.minutes, "slice_seconds": given.slice, "rounds": given.rounds, "clients": CLIENTS}
    header = make_header(timed=True)
    result = Measurement(header=header, script="serve_load", settings=settings, rows=rows, facts=facts)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    files.write(result, given.out)
    print(json.dumps([*rows, facts], indent=1))


def measure(seconds: float, piece: float, rounds: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the rows and facts; seconds: of steady load, piece: of a slice, of which each server gets `rounds`."""
    facts: dict[str, Any] = {}
    with start_edgeemo() as ours:
        rows, facts["steady"] = measure_steady(ours, seconds)
    with start_edgeemo() as ours, start_edgeemo("--batch-delay", "5") as batching, start_plain() as plain:
        servers = {"edgeemo serve": ours, "edgeemo serve --batch-delay 5": batching, "plain FastAPI": plain}
        rows += measure_beside(servers, piece, rounds)
    facts["model_ms_per_crop"] = time_batches()
    with start_edgeemo("--timeout", "10") as ours:
        rows += measure_slow(ours, piece * 2)
    facts["stop"] = measure_stop(piece)
    return rows, facts


def measure_steady(server: Server, seconds: float) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the row of a long load, and the memory that it has cost."""
    load(server, "photo", seconds / 10)
    before = server.read_memory()
    row = describe("steady", "edgeemo serve", "photo", [load(server, "photo", seconds * 0.9)])
    after = server.read_memory()
    return [row], {"seconds": seconds, "memory_mb_before": before, "memory_mb_after": after}


def measure_beside(servers: dict[str, Server], piece: float, rounds: int) -> list[dict[str, Any]]:
    """Return the rows of servers that take turns."""
    rows = []
    for kind in FILES:
        for server in servers.values():
            load(server, kind, piece / 2)
        answers: dict[str, list[dict[str, Any]]] = {name: [] for name in servers}
        for _ in range(rounds):
            for name, server in servers.items():
                answers[name].append(load(server, kind, piece))
        rows += [describe("beside", name, kind, parts) for name, parts in answers.items()]
    return rows


def time_batches() -> dict[str, float]:
    """Return the processor time of the model per crop, by the crops in a call: what batches can save."""
    from edgeemo import images, load  # noqa: PLC0415

    with load(MODEL) as model:
        one = images.to_pixels(images.read(FILES["crop"]), model.card.input)[None]
        found = {}
        for count in (1, 2, 4, 8):
            crops = np.repeat(one, count, axis=0)
            times = []
            for _ in range(300):
                began = time.process_time()
                model.predict_crops(crops)
                times.append(1000 * (time.process_time() - began) / count)
            found[str(count)] = round(float(np.median(times)), 4)
    return found


def measure_slow(server: Server, seconds: float) -> list[dict[str, Any]]:
    """Return the rows of 4 good clients, alone and beside slow ones."""
    load(server, "crop", 1)
    alone = load(server, "crop", seconds, clients=4)
    slow = run_client(server, "crop", seconds + 4, clients=SLOW, slow=True)
    time.sleep(1)  # until they are connected
    beside = load(server, "crop", seconds, clients=4)
    connected = json.loads(slow.communicate()[0])["connected"]
    return [
        describe("4 clients alone", "edgeemo serve", "crop", [alone]),
        {**describe("4 clients beside slow ones", "edgeemo serve", "crop", [beside]), "slow": connected},
    ]


def measure_stop(seconds: float) -> dict[str, Any]:
    """Return what became of requests when the server was asked to end under load."""
    with start_edgeemo() as server:
        client = run_client(server, "photo", seconds + 30, clients=CLIENTS, until_refused=True)
        time.sleep(seconds)
        server.process.send_signal(signal.SIGTERM)
        began = time.perf_counter()
        _, log = server.process.communicate(timeout=60)
        took = time.perf_counter() - began
        answers = json.loads(client.communicate()[0])
    found = re.search(r"stopped: (\d+) requests received, (\d+) answered", log)
    received, answered = map(int, found.groups()) if found else (-1, -1)
    return {
        "received": received,
        "answered": answered,
        "answers_at_clients": sum(answers["statuses"].values()),
        "statuses": answers["statuses"],
        "seconds_to_end": round(took, 3),
        "exit_code": server.process.returncode,
    }


def describe(load_: str, server: str, kind: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a row: requests a second of the median slice, quantiles of all requests."""
    times = np.concatenate([part["ms"] for part in parts])
    statuses: Counter[str] = Counter()
    for part in parts:
        statuses.update(part["statuses"])
    rates = [len(part["ms"]) / part["seconds"] for part in parts]
    quantiles = np.percentile(times, (50, 99)).tolist() if len(times) else (0.0, 0.0)
    return {
        "load": load_,
        "server": server,
        "images": kind,
        "requests": len(times),
        "per_second": round(float(np.median(rates)), 1),
        "p50_ms": round(quantiles[0], 2),
        "p99_ms": round(quantiles[1], 2),
        "cpu_ms": round(1000 * sum(part["cpu_seconds"] for part in parts) / max(1, len(times)), 3),
        "errors": sum(count for status, count in statuses.items() if status != "200"),
        "statuses": dict(sorted(statuses.items())),
    }


class Server:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url

    def read_memory(self) -> float:
        """Return its resident memory in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return round(int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1000, 1)

    def read_cpu_seconds(self) -> float:
        """Return the processor time that it has taken."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def start_edgeemo(*options: str) -> Iterator[Server]:
    """Start `edgeemo serve`, and end it."""
    command = [sys.executable, "-m", "edgeemo", "--quiet", "serve", MODEL, "--port", "0", *options]
    if options == ():
        command.remove("--quiet")  # the log is read at the end
    with start(command) as server:
        yield server


@contextmanager
def start_plain() -> Iterator[Server]:
    """Start the plain handler, and end it."""
    with start([sys.executable, __file__, "plain"]) as server:
        yield server


@contextmanager
def start(command: list[str]) -> Iterator[Server]:
    """Start a server that prints its address on the first line."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if process.stdout is None or process.stderr is None:
        raise RuntimeError
    url = process.stdout.readline().split()[-1]
    server = Server(process, url)
    stop = process.communicate
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stderr or ()), daemon=True)
    reader.start()  # a full pipe would stop the server

    def communicate(timeout: float = 60) -> tuple[str, str]:
        process.wait(timeout)
        reader.join(timeout)
        return "", "".join(lines)

    process.communicate = communicate  # type: ignore[assignment, method-assign]
    try:
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
        with suppress(ValueError):
            stop(timeout=10)


def load(server: Server, kind: str, seconds: float, *, clients: int = CLIENTS) -> dict[str, Any]:
    """Return what clients saw who posted for some seconds."""
    before = server.read_cpu_seconds()
    found: dict[str, Any] = json.loads(run_client(server, kind, seconds, clients=clients).communicate()[0])
    return {**found, "cpu_seconds": server.read_cpu_seconds() - before}


def run_client(
    server: Server, kind: str, seconds: float, *, clients: int, slow: bool = False, until_refused: bool = False
) -> subprocess.Popen[str]:
    """Start a process of clients, which prints what they saw as JSON."""
    task = {
        "url": server.url,
        "path": PATHS[kind],
        "file": str(FILES[kind]),
        "seconds": seconds,
        "clients": clients,
        "slow": slow,
        "until_refused": until_refused,
    }
    return subprocess.Popen([sys.executable, __file__, "client", json.dumps(task)], stdout=subprocess.PIPE, text=True)


async def post_all(task: dict[str, Any], content: bytes) -> dict[str, Any]:
    """Run the clients of a task, which post an image."""
    seen: dict[str, Any] = {"ms": [], "statuses": Counter(), "connected": 0}
    began = time.perf_counter()
    one = post_slowly if task["slow"] else post_repeatedly
    await asyncio.gather(*(one(task, content, began + task["seconds"], seen) for _ in range(task["clients"])))
    return {**seen, "seconds": time.perf_counter() - began}


async def post_repeatedly(task: dict[str, Any], content: bytes, end: float, seen: dict[str, Any]) -> None:
    """Post over one connection until the end, and open it again where the server closes it."""
    address = urlsplit(task["url"])
    head = f"POST {task['path']} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(content)}\r\n\r\n"
    request = head.encode() + content
    while time.perf_counter() < end:
        try:
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
        except OSError:
            if not task["until_refused"]:
                seen["statuses"]["refused"] += 1
            return
        try:
            while time.perf_counter() < end:
                started = time.perf_counter()
                writer.write(request)
                status, keep = await read_answer(reader)
                seen["statuses"][status] += 1
                seen["ms"].append(round(1000 * (time.perf_counter() - started), 3))
                if not keep:
                    break
        except asyncio.IncompleteReadError as error:
            if error.partial or not task["until_refused"]:
                seen["statuses"]["cut"] += 1
        except OSError:
            if not task["until_refused"]:
                seen["statuses"]["cut"] += 1
        finally:
            writer.close()


async def read_answer(reader: asyncio.StreamReader) -> tuple[str, bool]:
    """Return the status of an answer, and whether the connection stays open."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = re.search(rb"content-length: (\d+)", head)
    await reader.readexactly(int(length[1]) if length else 0)
    return head.split()[1].decode(), b"connection: close" not in head


async def post_slowly(task: dict[str, Any], content: bytes, end: float, seen: dict[str, Any]) -> None:
    """Send a byte every two seconds, of a header or of a body, and connect again where the server closes it."""
    address = urlsplit(task["url"])
    head = f"POST {task['path']} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(content)}\r\n"
    while time.perf_counter() < end:
        with suppress(OSError):
            _, writer = await asyncio.open_connection(address.hostname, address.port)
            seen["connected"] += 1
            writer.write(head.encode() + (b"\r\n" if seen["connected"] % 2 else b"X: "))
            while time.perf_counter() < end and not writer.is_closing():
                writer.write(b"a")
                await asyncio.sleep(2)
            writer.close()
        await asyncio.sleep(0.1)


def run_plain() -> None:
    """Serve the model as a tutorial does: decode, detect, crop, run, softmax, in a function that FastAPI runs."""
    import socket  # noqa: PLC0415

    import uvicorn  # noqa: PLC0415
    from fastapi import Body, FastAPI  # noqa: PLC0415

    from edgeemo import images  # noqa: PLC0415
    from edgeemo.card import read_card  # noqa: PLC0415
    from edgeemo.faces import crop, load_detector  # noqa: PLC0415
    from edgeemo.metrics import softmax  # noqa: PLC0415
    from edgeemo.runtime import shipped  # noqa: PLC0415
    from edgeemo.sessions import make_options, require_onnxruntime  # noqa: PLC0415

    file = shipped.find(MODEL)
    card, runtime = read_card(file), require_onnxruntime()
    session = runtime.InferenceSession(file, make_options(runtime, 1), providers=["CPUExecutionProvider"])
    name, detector = session.get_inputs()[0].name, load_detector()
    app = FastAPI()

    def classify(pixels: np.ndarray) -> dict[str, float]:
        logits = session.run(None, {name: images.to_input(pixels[None], card.input)})[0]
        shares = softmax(logits, temperature=card.temperature)[0]
        return {label: float(share) for label, share in zip(card.labels, shares, strict=True)}

    @app.post("/v1/predict")
    def predict(content: bytes = Body(media_type="image/png")) -> list[dict[str, Any]]:  # noqa: FAST002  resolved where it stands
        pixels = images.read(content)
        found = detector.detect(pixels)
        return [{"box": one.box, "emotions": classify(crop(pixels, one, card.input))} for one in found]

    @app.post("/v1/crop")
    def predict_crop(content: bytes = Body(media_type="image/png")) -> dict[str, float]:  # noqa: FAST002
        return classify(images.to_pixels(images.read(content), card.input))

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:  # as uvicorn.run has it
        listener.bind(("127.0.0.1", 0))
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        config = uvicorn.Config(app, log_level="error", access_log=False)
        uvicorn.Server(config).run(sockets=[listener])


def table(result: Measurement) -> Table:
    """Make a table with a row per load and server; the note has what is no row."""
    rows = [
        (
            _name_load(row),
            row["server"],
            row["images"],
            f"{row['per_second']:.0f}",
            f"{row['p50_ms']:.1f} / {row['p99_ms']:.1f}",
            f"{row['cpu_ms']:.2f}",
            str(row["errors"]),
        )
        for row in result.rows
    ]
    steady, stop, model = (result.facts[name] for name in ("steady", "stop", "model_ms_per_crop"))
    note = (
        f"{CLIENTS} clients where nothing else is said. Memory in {steady['seconds'] / 60:.3g} minutes of steady load: "
        f"{steady['memory_mb_before']:.0f} MB after the first tenth, {steady['memory_mb_after']:.0f} MB at the end. "
        f"SIGTERM under load: {stop['received']} requests received, {stop['answered']} answered, and as many answers, "
        f"{stop['answers_at_clients']}, at the clients. The model alone takes {model['1']:.2f} ms per crop, in calls "
        f"of 8 crops {model['8']:.2f}."
    )
    head = ("load", "server", "images", "a second", "p50 / p99 ms", "processor ms each", "errors")
    return Table("serving", head, rows, note, align="lllrrrr")


def _name_load(row: dict[str, Any]) -> str:
    return f"4 clients beside {row['slow']} slow ones" if "slow" in row else str(row["load"])


if __name__ == "__main__":
    if sys.argv[1:2] == ["client"]:
        asked = json.loads(sys.argv[2])
        print(json.dumps(asyncio.run(post_all(asked, Path(asked["file"]).read_bytes()))))
    elif sys.argv[1:2] == ["plain"]:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        run_plain()
    else:
        main()
