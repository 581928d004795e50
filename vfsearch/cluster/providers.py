"""Cluster files of Ray's own launcher: machines over ssh, and EC2."""

from typing import Any

from vfsearch.cluster.nodes import grows_by, mounts, setup_commands, start_head, start_worker
from vfsearch.cluster.values import AwsValues, ClusterValues


def local(values: ClusterValues) -> dict[str, Any]:
    """``local.yaml``: Ray's ``local`` provider."""
    mine = values.local
    files = mounts()
    if mine.credentials is not None:
        files["~/.aws/credentials"] = mine.credentials
    size = f"--object-store-memory={mine.object_store_mib << 20}"
    offered = "".join(
        f" --num-{what}={count}"
        for what, count in (("cpus", mine.cpus), ("gpus", mine.gpus))
        if count is not None
    )
    head = offered if mine.head_trains else " --num-cpus=0 --num-gpus=0"
    return {
        "cluster_name": values.name,
        "provider": {
            "type": "local",
            "head_ip": mine.head,
            "worker_ips": list(mine.workers),
        },
        "auth": {"ssh_user": mine.ssh_user, "ssh_private_key": mine.ssh_key},
        "min_workers": len(mine.workers),
        "max_workers": len(mine.workers),
        "idle_timeout_minutes": values.idle_minutes,
        "file_mounts": files,
        "setup_commands": setup_commands(values, {"VFSEARCH_NODES": f"{1 + len(mine.workers)}"}),
        "head_start_ray_commands": start_head(f"--node-ip-address={mine.head} {size}{head}"),
        "worker_start_ray_commands": start_worker(f"{size}{offered}"),
    }


def aws(values: ClusterValues) -> dict[str, Any]:
    """``aws.yaml``: spot workers first, on-demand ones where spot cannot be had.

    Ray's scheduler takes the node type of the highest ``priority`` among those that fit equally
    well and have not just failed to start.
    """
    mine = values.aws
    most = mine.max_spot + mine.max_on_demand
    extra = {
        "RAY_enable_autoscaler_v2": "1",
        "AWS_DEFAULT_REGION": mine.region,
        "VFSEARCH_GROWS_BY": grows_by(most, cpus=mine.worker_cpus, gpus=mine.worker_gpus),
    }
    if mine.dollars_per_gpu_hour is not None:
        extra["VFSEARCH_DOLLARS_PER_GPU_HOUR"] = f"{mine.dollars_per_gpu_hour:g}"
    worker = _instance(mine, mine.worker_instance, mine.worker_profile)
    offers = {"CPU": mine.worker_cpus, "GPU": mine.worker_gpus}
    spot = {**worker, "InstanceMarketOptions": {"MarketType": "spot"}}
    return {
        "cluster_name": values.name,
        "max_workers": most,
        "idle_timeout_minutes": values.idle_minutes,
        "provider": {
            "type": "aws",
            "region": mine.region,
            "use_internal_ips": True,
            "cache_stopped_nodes": False,
        },
        "auth": {"ssh_user": mine.ssh_user, "ssh_private_key": mine.ssh_key},
        "available_node_types": {
            "head": {
                "resources": {"CPU": 0},
                "node_config": _instance(mine, mine.head_instance, mine.head_profile),
                "min_workers": 0,
                "max_workers": 0,
            },
            "spot": {
                "resources": offers,
                "node_config": spot,
                "min_workers": 0,
                "max_workers": mine.max_spot,
                "priority": 1,
            },
            "on-demand": {
                "resources": offers,
                "node_config": worker,
                "min_workers": 0,
                "max_workers": mine.max_on_demand,
                "priority": 0,
            },
        },
        "head_node_type": "head",
        "file_mounts": mounts(),
        "setup_commands": setup_commands(values, extra),
        # Empty lists: Ray's defaults would install a nightly build and open the dashboard.
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": start_head("--num-cpus=0 --num-gpus=0"),
        "worker_start_ray_commands": start_worker("", spot=True),
    }


def _instance(mine: AwsValues, kind: str, profile: str) -> dict[str, Any]:
    """An EC2 instance without a public address; roles instead of keys, IMDSv2 only."""
    return {
        "InstanceType": kind,
        "ImageId": mine.image,
        "KeyName": mine.key_name,
        "SubnetIds": list(mine.subnets),
        "SecurityGroupIds": [mine.security_group],
        "IamInstanceProfile": {"Name": profile},
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        "BlockDeviceMappings": [
            {
                "DeviceName": "/dev/sda1",
                "Ebs": {"VolumeSize": mine.volume_gib, "VolumeType": "gp3", "Encrypted": True},
            }
        ],
    }
