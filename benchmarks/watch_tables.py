"""Tables of docs/watch.md, from what the scripts watch_*.py wrote to results/watch/."""

from __future__ import annotations

from typing import Any

from edgeemo.report.result import Measurement
from edgeemo.report.table import Table

SOURCES = {"rendered": "rendered rooms", "faces": "FER+ faces, moved by jitter"}
TROUBLES = {
    "killed": "the server is killed and started again",
    "stopped": "the server hangs",
    "repeats an image": "the server repeats an image",
}
PEERS = {
    "runs": "runs",
    "hangs": "hangs for {away:g} s",
    "restarts": "is away for {away:g} s",
    "dies": "hangs until the end",
}


def flicker(result: Measurement) -> Table:
    """Make a table of flips and delays, raw and smoothed, a row per source and model."""
    named = {(row["source"], row["model"], row["label"]): row for row in result.rows if row.get("fps") == 25}
    rows = []
    for (source, model, label), smoothed in named.items():
        if label == "smoothed":
            raw = named[source, model, "raw"]
            flips = f"{raw['flips_per_minute']:.0f} → {smoothed['flips_per_minute']:.0f}"
            accuracy = f"{100 * raw['accuracy']:.1f} → {100 * smoothed['accuracy']:.1f}"
            delays = f"{smoothed['detect_ms_p50']:g} / {smoothed['detect_ms_p95']:g}"
            rows.append((SOURCES[source], model, flips, delays, accuracy))
    head = ("faces", "model", "flips a minute, raw → smoothed", "ms to a new label, p50 / p95", "frames right, %")
    note = "At 25 frames a second. A frame just after a change counts as wrong until the new label is shown."
    return Table("flicker", head, rows, note, align="llrrr")


def tracks(result: Measurement) -> Table:
    """Make a table of identity switches, a row per tracker and a column per number of people."""
    people = sorted({row["people"] for row in result.rows})
    found = {(row["tracker"], row["people"]): row for row in result.rows}
    trackers = list(dict.fromkeys(row["tracker"] for row in result.rows))
    rows = [(name, *(_format_switches(found[name, count]) for count in people)) for name in trackers]
    head = ("tracker", *(f"{count} {'person' if count == 1 else 'people'}" for count in people))
    note = f"Switches per face-minute; share of visible faces that have a track. Peer: {result.settings['peer']}."
    return Table("tracks", head, rows, note, align="l" + "r" * len(people))


def _format_switches(row: dict[str, Any]) -> str:
    return f"{row['switches_per_face_minute']:.2f}; {100 * row['matched']:.0f} %"


def streams(result: Measurement) -> Table:
    """Make a table of delays of a network stream, and of what was noticed."""
    rows = []
    for row in result.rows:
        length = f"{row['server']}, {row['seconds'] / 60:.3g} min"
        for name, key in (("capture → answer", "capture_to_answer_ms"), ("sent → answer", "sent_to_answer_ms")):
            delays = row[key]
            texts = (f"{delays[part]['p50']:.0f} / {delays[part]['p95']:.0f}" for part in ("all", "first", "last"))
            rows.append((length, name, *texts))
    head = ("stream", "delay", "ms p50 / p95", "first minute", "last minute")
    return Table("streams", head, rows, "One face in 640x480, on one core.", align="llrrr")


def troubles(result: Measurement) -> Table:
    """Make a table of what happened to the servers of streams, and when it was noticed."""
    rows = [
        (TROUBLES[one["what"]], f"{one['noticed_s']:.1f}", f"{one['back_s']:.1f}")
        for row in result.rows
        for one in row["troubles"]
    ]
    settings = result.settings
    note = f"Time-out {settings['timeout_s']:g} s; frozen after {settings['frozen_after_s']:g} s."
    return Table("troubles", ("what", "noticed after, s", "frames again after, s"), rows, note, align="lrr")


def delivery(result: Measurement) -> Table:
    """Make a table of records that peers received, a row per peer and what it did."""
    away = result.settings["away_seconds"]
    rows = [
        (
            row["peer"],
            PEERS[row["it"]].format(away=away),
            str(row["records"]),
            str(row["received"]),
            str(row["lost"]),
            str(row["twice"]),
            f"{row['write_ms_max']:.1f}",
        )
        for row in result.rows
    ]
    head = ("peer", "it", "records", "received", "lost", "twice", "longest wait of the loop, ms")
    return Table("delivery", head, rows, "", align="llrrrrr")


def soak(result: Measurement) -> Table:
    """Make a table of long runs."""
    rows = [
        (
            f"{row['minutes']:g} min, then {row['signal']}",
            str(row["tracks"]),
            f"{row['rss_mb'][0]:.1f} → {row['rss_mb'][1]:.1f}",
            " or ".join(map(str, row["threads"])),
            f"{row['seconds_to_end']:.1f}",
            f"{row['jsonl_records']:,}, {row['csv_rows']:,}",
            "" if row["video_frames"] is None else f"{row['video_frames']:,}",
        )
        for row in result.rows
    ]
    head = ("run", "tracks", "memory, MB", "threads", "s to end", "JSON records, rows", "frames of a video")
    return Table("soak", head, rows, "", align="lrrrrrr")
