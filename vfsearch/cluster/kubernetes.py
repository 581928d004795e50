"""``kuberay.yaml``: a RayJob whose cluster grows and shrinks, closed to its neighbours."""

from typing import Any

from vfsearch.cluster.nodes import grows_by
from vfsearch.cluster.values import ClusterValues

RAY = "2.60.0"
_LABEL = "vfsearch.example/cluster"
_LEAVE = 100
"""Seconds that a worker pod which is ended gets to bring its trials' epochs to safety."""


def kuberay(values: ClusterValues) -> list[dict[str, Any]]:
    """NetworkPolicy and RayJob, in the order in which they are applied."""
    return [_policy(values), _job(values)]


def _policy(values: ClusterValues) -> dict[str, Any]:
    """Only pods of the cluster, and KubeRay's operator, reach its pods."""
    mine = {"matchLabels": {_LABEL: values.name}}
    operator = {
        "namespaceSelector": {},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}},
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": values.name, "namespace": values.kubernetes.namespace},
        "spec": {
            "podSelector": mine,
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [{"podSelector": mine}]},
                {"from": [operator], "ports": [{"protocol": "TCP", "port": 8265}]},
            ],
        },
    }


def _job(values: ClusterValues) -> dict[str, Any]:
    mine = values.kubernetes
    sweep = " ".join(("vfsearch", "sweep", mine.sweep, "--address", "auto", *mine.arguments))
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": values.name, "namespace": mine.namespace},
        "spec": {
            "entrypoint": sweep,
            # The head is lost now and then: the same command continues from S3.
            "backoffLimit": 3,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 600,
            "rayClusterSpec": {
                "rayVersion": RAY,
                # KubeRay makes the token and keeps it in a Secret.
                "authOptions": {"mode": "token"},
                "enableInTreeAutoscaling": True,
                "autoscalerOptions": {
                    "version": "v2",
                    "idleTimeoutSeconds": round(values.idle_minutes * 60),
                },
                "headGroupSpec": {
                    "rayStartParams": {"num-cpus": "0", "num-gpus": "0"},
                    "template": _pod(values, {"cpu": "2", "memory": "8Gi"}, None),
                },
                "workerGroupSpecs": [
                    _workers(values, "spot", mine.max_spot, priority=1),
                    _workers(values, "on-demand", mine.max_on_demand, priority=0),
                ],
            },
        },
    }


def _workers(values: ClusterValues, capacity: str, most: int, *, priority: int) -> dict[str, Any]:
    mine = values.kubernetes
    resources = {
        "cpu": str(mine.cpus),
        "memory": f"{mine.memory_gib}Gi",
        "nvidia.com/gpu": str(mine.gpus),
    }
    return {
        "groupName": capacity,
        "replicas": 0,
        "minReplicas": 0,
        "maxReplicas": most,
        # Of the groups that fit, the autoscaler takes the highest that did not just fail.
        "priority": priority,
        "rayStartParams": {},
        "template": _pod(values, resources, capacity),
    }


def _pod(values: ClusterValues, resources: dict[str, str], capacity: str | None) -> dict[str, Any]:
    mine = values.kubernetes
    most = mine.max_spot + mine.max_on_demand
    own = {
        "VFSEARCH_HOME": "/scratch",
        "VFSEARCH_GROWS_BY": grows_by(most, cpus=mine.cpus, gpus=mine.gpus),
    }
    container: dict[str, Any] = {
        "name": "ray-worker" if capacity else "ray-head",
        "image": mine.image,
        "env": [
            {"name": name, "value": value} for name, value in {**own, **values.variables}.items()
        ],
        "resources": {"requests": resources, "limits": resources},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
    }
    spec: dict[str, Any] = {
        "serviceAccountName": mine.service_account,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "fsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
    }
    if capacity is not None:
        # Longer than the drain, which ends as soon as the node's trials have left.
        spec["terminationGracePeriodSeconds"] = _LEAVE + 20
        leave = ["vfsearch", "cluster", "drain", "--seconds", str(_LEAVE), "--wait"]
        container["lifecycle"] = {"preStop": {"exec": {"command": leave}}}
        spec["nodeSelector"] = {mine.capacity_label: capacity}
        spec["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    return {"metadata": {"labels": {_LABEL: values.name}}, "spec": spec}
