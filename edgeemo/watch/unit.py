"""A systemd unit for a watch that runs for months, with no more rights than it needs.

The quoting is that of systemd.service(5), "Command lines"; the restrictions are those of systemd.exec(5).
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path, PurePosixPath
from typing import Any

from edgeemo.config_file import SECRET, URL, anchor, hide_secret, is_variable, make_config
from edgeemo.options import Typed, options
from edgeemo.stages import Watch

STATE = "/var/lib/edgeemo"  # StateDirectory=edgeemo: the service's own folder, where relative outputs are written
SECRETS = "/etc/edgeemo/secrets.env"
OUTPUTS = ("jsonl", "csv", "save")
LEFT_OUT = ("print_config", "print_unit")
IN_HOME = re.compile(r"(?:--[a-z-]+=)?(/(?:home|root|run/user)/.*)")
PLAIN = re.compile(r"[A-Za-z0-9_@+=:,./-]+")
CAMERA = re.compile(r"\d+|/dev/.*")
ENGINE = ".trt"  # suffix of a model that runs on a GPU

UNIT = """\
# edgeemo watch as a service.  Save it as /etc/systemd/system/edgeemo.service, then:
#   systemctl daemon-reload && systemctl enable --now edgeemo
#   systemctl reload edgeemo      loads the model file again, after it was replaced
#   systemctl status edgeemo; journalctl -u edgeemo
{notes}
[Unit]
Description=edgeemo watch
{after}# Keep restarting, however often: there may be nobody near the device.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
WatchdogSec=60
TimeoutStartSec=120
TimeoutStopSec={stop}
Restart=on-failure
RestartSec=15
# Wrong options, unusable data and damaged files do not go away by a restart.
RestartPreventExitStatus=2 3 4
SuccessExitStatus=130 143
{secrets}
# A user of its own, created at the start, which can write to its state folder only.
DynamicUser=yes
StateDirectory=edgeemo
WorkingDirectory=%S/edgeemo
UMask=0077
{writable}{groups}{devices}
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=strict
ProtectHome={home}
ProtectHostname=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
CapabilityBoundingSet=
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
# A limit on memory; first measure what yours needs.
#MemoryMax=512M
OOMPolicy=stop

[Install]
WantedBy=multi-user.target
"""


def make_unit(config: Watch, *, program: list[str] | None = None, folder: Path | None = None) -> str:
    """Return a systemd unit that runs this watch.

    program: the words that start edgeemo; by default this edgeemo by its absolute path. folder: what relative paths of
    inputs are relative to; by default the current one. Relative outputs are written to the service's state folder.

    Options of the config's file stay there. Values that can have a secret are replaced by `env:NAME`, and a comment
    says which variables to set.
    """
    words, variables = _list_words(config, folder or Path.cwd())
    command = [*(program or find_program()), "watch", *words]
    source = config.source or ""
    variables += _list_passwords(config, variables)
    in_home = [found[1] for word in command if (found := IN_HOME.match(word))]
    return UNIT.format(
        command=" \\\n    ".join(map(quote, command)),
        notes=_write_notes(variables, in_home),
        after=_write_order(config),
        stop=90 if config.save else 20,  # a video is completed on a disk that may be slow
        secrets=f"EnvironmentFile=-{SECRETS}\n" if variables else "",
        writable=_write_folders(config),
        groups=_write_groups(config, source),
        devices=_write_devices(config, source),
        home="read-only" if in_home else "yes",
    )


def find_program() -> list[str]:
    """Return the words that start this edgeemo: its script by absolute path, else its Python and module."""
    beside = Path(sys.executable).with_name("edgeemo")
    found = str(beside) if beside.is_file() else shutil.which("edgeemo")
    return [str(Path(found).absolute())] if found else [sys.executable, "-m", "edgeemo"]


def quote(word: str) -> str:
    """Return a word of a command line as systemd reads it: specifiers (%) and variables ($) are doubled."""
    doubled = word.replace("%", "%%").replace("$", "$$")
    if PLAIN.fullmatch(doubled.replace("%%", "").replace("$$", "") or "x") and doubled:
        return doubled
    escaped = doubled.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(_escape(letter) for letter in escaped) + '"'


def _escape(letter: str) -> str:
    r"""Return a control character as \xNN, and a byte that is not UTF-8 too; other letters as they are."""
    if letter < " " or letter == "\x7f" or "\udc80" <= letter <= "\udcff":
        return f"\\x{ord(letter) & 0xFF:02x}"
    return letter


def _list_words(config: Watch, folder: Path) -> tuple[list[str], list[str]]:
    """Return the options that differ from those of the config's file, and the variables that stand for secrets."""
    base = make_config(Watch, {"print_unit": True}, config.config)
    words: list[str] = []
    variables: list[str] = []
    for one in options(Watch):
        hidden = hide_secret(one, config)
        variables += [hidden.removeprefix(SECRET)] if hidden else []
        value = hidden or getattr(config, one.name)
        if one.name in LEFT_OUT or (value == getattr(base, one.name) and one.name != "config"):
            continue
        if one.name not in OUTPUTS:
            value = anchor(one, value, folder.absolute())
        if value is not None:
            words += _write_option(one, value)
    return words, variables


def _list_passwords(config: Watch, variables: list[str]) -> list[str]:
    """Return the variables from which outputs read passwords that their URL does not have."""
    broker = ["EDGEEMO_MQTT_PASSWORD"] if config.mqtt and "EDGEEMO_MQTT" not in variables else []
    return [*broker, "EDGEEMO_WEBHOOK_TOKEN"] if config.webhook else broker


def _write_option(one: Typed, value: Any) -> list[str]:
    if one.about.argument:
        return [str(value)]
    if one.type is bool:
        return [one.flag if value else one.flag.replace("--", "--no-", 1)]
    return [f"{one.flag}={value}"]  # one word, because a value may begin with a dash


def _write_notes(variables: list[str], in_home: list[str]) -> str:
    notes = ""
    if variables:
        lines = "\n".join(f"#   {name}=..." for name in variables)
        notes += f"# Secrets are not in this file.  Write those that are needed to {SECRETS},\n"
        notes += f"# mode 600, owner root:\n{lines}\n"
    if in_home:
        shown = ", ".join(dict.fromkeys(in_home))
        notes += (
            f"# The service's user must be able to read {shown}\n"
            "# in a home folder, which most systems deny: install edgeemo and its files in /opt/edgeemo instead.\n"
        )
    return notes


def _write_order(config: Watch) -> str:
    """Return the dependency on the network, of what is reached through it."""
    addresses = (config.source, config.mqtt, config.webhook)
    if any(one and (URL.match(one) or is_variable(one)) for one in addresses):
        return "Wants=network-online.target\nAfter=network-online.target\n"
    return ""


def _write_folders(config: Watch) -> str:
    """Return the folders of outputs outside the state folder, which have to be writable for the service's user."""
    found = []
    for name in OUTPUTS:
        path = PurePosixPath(str(getattr(config, name) or "-"))
        if path.is_absolute() and not path.is_relative_to(STATE) and not path.is_relative_to("/dev"):
            found.append(str(path.parent))
    if not found:
        return ""
    folders = " ".join(quote(one).replace("$$", "$") for one in dict.fromkeys(found))
    return f"# The user of the service must be allowed to write here.\nReadWritePaths={folders}\n"


def _is_gpu(config: Watch) -> bool:
    return Path(config.model or "").suffix == ENGINE


def _write_groups(config: Watch, source: str) -> str:
    groups = ["video"] if _is_camera(source) or _is_gpu(config) else []
    groups += ["render"] if _is_gpu(config) else []
    return f"SupplementaryGroups={' '.join(groups)}\n" if groups else ""


def _is_camera(source: str) -> bool:
    return bool(CAMERA.fullmatch(source)) or source.startswith("picamera2")


def _write_devices(config: Watch, source: str) -> str:
    """Return which devices the service may open: none, or those of the camera."""
    if _is_gpu(config):
        return "# No limit on devices: those of a GPU differ between boards.\n"
    if not _is_camera(source):
        return "PrivateDevices=yes\n"
    kinds = ["char-video4linux"]
    if source.startswith("picamera2"):
        kinds += ["char-media", "char-dma_heap"]
    return "DevicePolicy=closed\n" + "".join(f"DeviceAllow={kind} rw\n" for kind in kinds)
