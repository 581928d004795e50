"""The rendered files: fresh, accepted by Ray itself, and closed to the outside."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.util import prepare_config, validate_config

from vfsearch.cluster.providers import aws, local
from vfsearch.cluster.render import render, stale, write
from vfsearch.cluster.values import AwsValues, ClusterValues, load_values
from vfsearch.errors import ConfigError
from vfsearch.search.cluster import Expected

FOLDER = Path(__file__).parents[2] / "cluster"
VALUES = load_values(FOLDER / "values.yaml")
FILES = render(VALUES)


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(FILES[name]))


def test_the_committed_files_are_what_the_values_say() -> None:
    assert stale(VALUES, FOLDER) == []


def test_what_is_stale_is_found_and_written(tmp_path: Path) -> None:
    assert set(stale(VALUES, tmp_path)) == set(FILES)
    assert set(write(VALUES, tmp_path)) == set(FILES)
    (tmp_path / "aws.yaml").write_text("# changed by hand\n")
    assert write(VALUES, tmp_path) == ["aws.yaml"]
    assert stale(VALUES, tmp_path) == []
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)


@pytest.mark.parametrize("name", ["local.yaml", "aws.yaml"])
def test_rays_own_validation_accepts_them(name: str) -> None:
    validate_config(prepare_config(documents(name)[0]))


def test_local_passes_the_bootstrap_of_its_provider() -> None:
    config = _bootstrap_config(prepare_config(local(VALUES)), no_config_cache=True)
    assert config["provider"]["worker_ips"] == list(VALUES.local.workers)
    assert config["available_node_types"]["local.cluster.node"]["min_workers"] == 2


@pytest.fixture(scope="module")
def foundation() -> Iterator[ClusterValues]:
    """An account (moto's) in which the foundation was made; the values that name it."""
    import boto3
    from moto import mock_aws

    region = VALUES.aws.region
    with pytest.MonkeyPatch.context() as patch, mock_aws():  # moto sets keys of its own
        patch.setenv("AWS_DEFAULT_REGION", region)
        ec2 = boto3.client("ec2", region)
        vpc = ec2.create_vpc(CidrBlock="10.77.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.77.0.0/24")["Subnet"]["SubnetId"]
        ec2.create_key_pair(KeyName=VALUES.aws.key_name)
        stack = boto3.client("cloudformation", region)
        stack.create_stack(
            StackName="vfsearch",
            TemplateBody=FILES["aws-foundation.yaml"],
            Capabilities=["CAPABILITY_NAMED_IAM"],
            Parameters=[
                {"ParameterKey": "Vpc", "ParameterValue": vpc},
                {"ParameterKey": "AdminCidr", "ParameterValue": "10.8.0.0/24"},
                {"ParameterKey": "Bucket", "ParameterValue": "corpora"},
            ],
        )
        outputs = stack.describe_stacks(StackName="vfsearch")["Stacks"][0]["Outputs"]
        made = {
            "subnets": [subnet],
            "security_group": outputs[0]["OutputValue"],
            "image": ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"],
        }
        changed = {**VALUES.aws.model_dump(mode="json"), **made}
        yield VALUES.model_copy(update={"aws": AwsValues.model_validate(changed)})


def test_aws_passes_the_bootstrap_and_leaves_the_foundation_as_it_is(
    foundation: ClusterValues,
) -> None:
    import boto3

    wanted = aws(foundation)
    config = _bootstrap_config(prepare_config(copy.deepcopy(wanted)), no_config_cache=True)
    region = foundation.aws.region
    groups = boto3.client("ec2", region).describe_security_groups()["SecurityGroups"]
    assert len([g for g in groups if g["GroupName"] != "default"]) == 1, "Ray made another group"
    ours = next(g for g in groups if g["GroupId"] == foundation.aws.security_group)
    for rule in ours["IpPermissions"]:
        assert {r["CidrIp"] for r in rule["IpRanges"]} <= {"10.8.0.0/24"}
        members = {pair["GroupId"] for pair in rule["UserIdGroupPairs"]}
        assert members <= {foundation.aws.security_group}
        assert rule["IpRanges"] or members, "a rule without a source is open to all"
    roles = {role["RoleName"] for role in boto3.client("iam", region).list_roles()["Roles"]}
    assert len(roles) == 2, "Ray made a role"
    for name, node in config["available_node_types"].items():
        for key, value in wanted["available_node_types"][name]["node_config"].items():
            assert node["node_config"][key] == value, key
    assert config["head_start_ray_commands"] == wanted["head_start_ray_commands"]


def test_the_heads_role_can_start_workers_and_the_workers_role_the_bucket_alone() -> None:
    made = documents("aws-foundation.yaml")[0]["Resources"]
    allowed = {
        name: {
            action
            for statement in made[name]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
            for action in statement["Action"]
        }
        for name in ("HeadRole", "WorkerRole")
    }
    assert {action.partition(":")[0] for action in allowed["WorkerRole"]} == {"s3"}
    assert {"ec2:RunInstances", "ec2:TerminateInstances", "iam:PassRole"} <= allowed["HeadRole"]
    assert not any("*" in action for actions in allowed.values() for action in actions)


def test_spot_workers_come_first_and_on_demand_ones_when_spot_fails() -> None:
    """Ray's own scheduler decides, on the rendered node types."""
    from ray.autoscaler.v2.instance_manager.config import NodeTypeConfig
    from ray.autoscaler.v2.scheduler import (
        ResourceDemandScheduler,
        ResourceRequestSource,
        SchedulingNode,
    )
    from ray.autoscaler.v2.utils import ResourceRequestUtil

    types = aws(VALUES)["available_node_types"]

    def chosen(availability: dict[str, float]) -> str:
        nodes = [
            SchedulingNode.from_node_config(
                NodeTypeConfig(
                    name=name,
                    min_worker_nodes=0,
                    max_worker_nodes=types[name]["max_workers"],
                    resources=types[name]["resources"],
                    priority=types[name]["priority"],
                ),
                status=None,
                node_kind=1,
            )
            for name in ("on-demand", "spot")
        ]
        asked = [ResourceRequestUtil.make({"CPU": 1, "GPU": 1})]
        best, _, _ = ResourceDemandScheduler._sched_best_node(
            asked, nodes, ResourceRequestSource.PENDING_DEMAND, availability, availability
        )
        return str(best.node_type)

    assert chosen({}) == "spot"
    assert chosen({"spot": 0.0}) == "on-demand"


def test_the_nodes_know_how_large_the_cluster_is_to_be() -> None:
    """A sweep that waits for its nodes, or asks what could fit, reads what was rendered."""

    def told(name: str) -> Expected:
        commands = documents(name)[0]["setup_commands"]
        node = next(command for command in commands if "node.sh" in command)
        return Expected.read(dict(re.findall(r'export (VFSEARCH_\w+)="([^"]*)"', node)))

    assert told("local.yaml") == Expected(nodes=3)
    grown = told("aws.yaml").grown([{"CPU": 0.0}, {"CPU": 4.0, "GPU": 1.0}])
    assert len(grown) == 1 + VALUES.aws.max_spot + VALUES.aws.max_on_demand
    assert grown[-1] == {"CPU": 4.0, "GPU": 1.0}
    job = documents("kuberay.yaml")[1]["spec"]["rayClusterSpec"]
    env = job["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
    pods = Expected.read({entry["name"]: entry["value"] for entry in env})
    assert pods.count == VALUES.kubernetes.max_spot + VALUES.kubernetes.max_on_demand
    assert Expected.read({}).grown([{"CPU": 2.0}]) == [{"CPU": 2.0}]


def test_no_file_opens_the_dashboard_or_holds_a_secret() -> None:
    for name in ("local.yaml", "aws.yaml"):
        head, *_ = [c for c in documents(name)[0]["head_start_ray_commands"] if "--head" in c]
        assert "--dashboard-host=127.0.0.1" in head
        node = next(c for c in documents(name)[0]["setup_commands"] if "node.sh" in c)
        assert 'RAY_AUTH_MODE="token"' in node
    assert documents("aws.yaml")[0]["provider"]["use_internal_ips"] is True
    for text in FILES.values():
        assert "0.0.0.0" not in text
        assert not re.search(r"(?i)(secret|password|access_key)\w*['\"]?\s*[:=]\s*\S", text)


def test_kuberay_is_read_by_rays_autoscaler() -> None:
    """Ray builds its node types from the RayCluster as its Kubernetes sidecar would."""
    from ray.autoscaler._private.kuberay.autoscaling_config import (
        _derive_autoscaling_config_from_ray_cr,
    )

    policy, job = documents("kuberay.yaml")
    assert (policy["kind"], job["kind"]) == ("NetworkPolicy", "RayJob")
    cluster = {
        "metadata": {"name": "x", "namespace": "y"},
        "spec": job["spec"]["rayClusterSpec"],
    }
    types = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    assert types["spot"]["resources"]["GPU"] == VALUES.kubernetes.gpus
    assert types["spot"]["priority"] > types["on-demand"]["priority"]
    assert types["spot"]["max_workers"] == VALUES.kubernetes.max_spot
    spec = job["spec"]["rayClusterSpec"]
    assert spec["authOptions"] == {"mode": "token"}
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert (
            group["template"]["metadata"]["labels"] == policy["spec"]["podSelector"]["matchLabels"]
        )


def test_the_image_does_not_run_as_root_and_takes_the_lock() -> None:
    lines = FILES["Dockerfile"].splitlines()
    assert [line for line in lines if line.startswith("USER")] == ["USER 1000:1000"]
    assert "runtime" in next(line for line in lines if line.startswith("FROM"))
    setup = (FOLDER / "node-setup.sh").read_text()
    assert "--require-hashes" in setup
    assert "requirements.lock" in setup


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"local": {"head": "host", "workers": ["10.0.0.2"]}}, "'host' must be an IP address"),
        ({"local": {"head": "10.0.0.2", "workers": ["10.0.0.2"]}}, "different machines"),
        ({"variables": {"AWS_SECRET_ACCESS_KEY": "x"}}, "looks like a secret"),
        ({"variables": {"A": "it's"}}, "without quotes"),
        ({"aws": {"max_spot": -1}}, "aws.max_spot"),
        ({"typo": 1}, "is no setting"),
    ],
)
def test_wrong_values_are_told_with_their_line(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(change))
    with pytest.raises(ConfigError) as caught:
        load_values(path)
    assert said in str(caught.value)
    assert f"{path}:" in str(caught.value)


@given(
    workers=st.integers(1, 40),
    spot=st.integers(0, 100),
    idle=st.floats(0.5, 1e4),
    tls=st.booleans(),
    variables=st.dictionaries(
        st.from_regex(r"VF_[A-Z]{1,8}", fullmatch=True),
        st.text("abcdefghijklmnop:/.-_ 0123456789", max_size=30),
        max_size=4,
    ),
)
def test_whatever_the_values_ray_accepts_the_files(
    workers: int, spot: int, idle: float, tls: bool, variables: dict[str, str]
) -> None:
    values = ClusterValues.model_validate(
        {
            "idle_minutes": idle,
            "tls": tls,
            "variables": variables,
            "local": {"head": "10.0.0.1", "workers": [f"10.0.1.{i}" for i in range(workers)]},
            "aws": {"max_spot": spot},
        }
    )
    for config in (local(values), aws(values)):
        validate_config(prepare_config(config))
