"""docs/kubernetes.yaml: its objects fit each other, the container's options exist, and it may do little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeemo.cli import main
from edgeemo.stages import Serve

yaml = pytest.importorskip("yaml", reason="pip install pyyaml")
ROOT = Path(__file__).parents[2]
HELD = 16  # times --max-bytes: docs/serve.md, Limits
SERVES = pytest.mark.skipif("serve" not in main.commands, reason="edgeemo serve is not there")


@pytest.fixture(scope="module")
def objects() -> dict[str, dict[str, Any]]:
    """By kind; one of each."""
    found = list(yaml.safe_load_all((ROOT / "docs" / "kubernetes.yaml").read_text(encoding="utf-8")))
    kinds = {one["kind"]: one for one in found}
    assert len(kinds) == len(found)
    return kinds


@pytest.fixture(scope="module")
def pod(objects: dict[str, Any]) -> dict[str, Any]:
    return objects["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    return only


def test_every_object_fits_the_schema_of_kubernetes(objects: dict[str, Any]) -> None:
    """Keys and their types, of the newest version that the package has; none may be unknown."""
    schemas = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate, 120 MB")
    for one in objects.values():
        schemas.validate(one, schemas.latest_version(), strict=True)


def get_option(container: dict[str, Any], name: str) -> str:
    (value,) = [one.partition("=")[2] for one in container["args"] if one.startswith(f"--{name}=")]
    return value


def test_every_object_selects_the_pods(objects: dict[str, Any]) -> None:
    """By the label of the deployment's template, in its namespace."""
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert objects["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert objects["Service"]["spec"]["selector"] == labels
    assert objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    target = objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", objects["Deployment"]["metadata"]["name"])
    namespaces = {kind: one["metadata"].get("namespace") for kind, one in objects.items() if kind != "Namespace"}
    assert set(namespaces.values()) == {objects["Namespace"]["metadata"]["name"]}


def test_ports_and_probes_are_those_of_the_server(objects: dict[str, Any], container: dict[str, Any]) -> None:
    """Liveness never depends on the load: a busy server is not ready, and alive."""
    (port,) = container["ports"]
    assert str(port["containerPort"]) == get_option(container, "port")
    assert objects["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    assert objects["NetworkPolicy"]["spec"]["ingress"][0]["ports"][0]["port"] == port["name"]
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/ready",
        "readiness": "/ready",
        "liveness": "/health",
    }
    assert all(probe["port"] == port["name"] for probe in probes.values())


def test_a_stopped_pod_has_time_for_what_it_took(pod: dict[str, Any], container: dict[str, Any]) -> None:
    """The pause before the signal and --grace fit in the time until it is killed."""
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pause + int(get_option(container, "grace")) < pod["terminationGracePeriodSeconds"]


def test_the_container_may_do_little(pod: dict[str, Any], container: dict[str, Any], objects: dict[str, Any]) -> None:
    """Not root, nothing to write to but memory, no privileges, no way out."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["automountServiceAccountToken"] is False
    own = container["securityContext"]
    assert own == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert objects["NetworkPolicy"]["spec"]["egress"] == []
    assert "Egress" in objects["NetworkPolicy"]["spec"]["policyTypes"]
    assert set(container["resources"]["limits"]) == {"cpu", "memory"}


def test_the_memory_is_enough_for_the_largest_images_that_are_taken(container: dict[str, Any]) -> None:
    """As pixels, in each worker, and as files: those that arrive, those in work and their parts, and those of streams.

    Two workers took 22 bytes per pixel of a lossless WebP file with alpha, of 38 bytes, on x86-64.
    """
    number, unit = container["resources"]["limits"]["memory"][:-2], container["resources"]["limits"]["memory"][-2:]
    assert unit == "Mi"
    pixels = 24 * int(get_option(container, "workers")) * int(get_option(container, "max-pixels"))
    files = int(get_option(container, "max-bytes")) * (3 * HELD + 4 * Serve().streams)
    assert 150e6 + pixels + files < int(number) * 2**20


def test_the_server_has_a_worker_for_each_core(container: dict[str, Any]) -> None:
    """More would wait for each other; fewer leave a core idle."""
    assert get_option(container, "workers") == container["resources"]["limits"]["cpu"]


@SERVES
def test_the_autoscaler_reads_a_gauge_that_the_server_has(objects: dict[str, Any], container: dict[str, Any]) -> None:
    """And adds pods before requests are refused."""
    (metric,) = objects["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert int(metric["pods"]["target"]["averageValue"]) < int(get_option(container, "queue"))
    assert (
        objects["PodDisruptionBudget"]["spec"]["minAvailable"]
        < (objects["HorizontalPodAutoscaler"]["spec"]["minReplicas"])
    )
    source = ROOT / "edgeemo" / "serve" / "metrics.py"
    assert f'"{metric["pods"]["metric"]["name"]}"' in source.read_text(encoding="utf-8")


@SERVES
def test_the_command_line_is_one_that_edgeemo_takes(container: dict[str, Any]) -> None:
    """Every option exists, with values of its type."""
    name, word = container["command"]
    assert name == "edgeemo"
    command = main.commands[word]
    context = command.make_context(word, list(container["args"]))
    assert context.params["host"] == "0.0.0.0"  # noqa: S104  in the pod; the policy says who may connect
