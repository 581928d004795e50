"""The one set of values from which every cluster file is rendered."""

import ipaddress
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from vfsearch.config import Count, Positive, Section, Whole, read_yaml, validate

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
VariableName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]

_SECRETS = ("SECRET", "PASSWORD", "TOKEN", "ACCESS_KEY")


class LocalValues(Section):
    """Machines that one has, reached over ssh."""

    head: str = "192.0.2.10"
    """Address of the head node; the workers must reach it."""
    workers: Annotated[tuple[str, ...], Field(min_length=1)] = ("192.0.2.11", "192.0.2.12")
    """Addresses of the worker nodes."""
    ssh_user: str = "ubuntu"
    """User on every node."""
    ssh_key: str = "~/.ssh/id_ed25519"
    """Private key on the launching machine."""
    head_trains: bool = True
    """Workers of trials may run on the head node too."""
    cpus: Count | None = None
    """CPUs that each node offers; null: all it has."""
    gpus: Whole | None = None
    """GPUs that each node offers; null: all it has."""
    object_store_mib: Annotated[int, Field(ge=100)] = 512
    """Shared memory of Ray per node, MiB; orders and metrics are all that travels through it."""
    credentials: str | None = None
    """AWS credentials file for S3, copied to every node (0600); null: the nodes have their own."""

    @field_validator("head", "workers")
    @classmethod
    def _addresses(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for one in (value,) if isinstance(value, str) else value:
            try:
                ipaddress.ip_address(one)
            except ValueError:
                raise ValueError(f"{one!r} must be an IP address, like 192.0.2.10") from None
        return value

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        nodes = (self.head, *self.workers)
        if len(set(nodes)) < len(nodes):
            raise ValueError(f"head and workers must be different machines, but are {nodes}")
        return self


class AwsValues(Section):
    """EC2: a small head node, GPU workers that come and go."""

    region: str = "us-west-2"
    """Region."""
    subnets: Annotated[tuple[str, ...], Field(min_length=1)] = ("subnet-0123456789abcdef0",)
    """Private subnets (``PrivateSubnet`` of ``cluster/aws-foundation.yaml``)."""
    security_group: str = "sg-0123456789abcdef0"
    """Open among its members only (``SecurityGroup`` of the foundation)."""
    key_name: str = "vfsearch"
    """EC2 key pair for ssh."""
    ssh_user: str = "ubuntu"
    """User of the image."""
    ssh_key: str = "~/.ssh/vfsearch.pem"
    """Private key of ``key_name`` on the launching machine."""
    image: str = "ami-0123456789abcdef0"
    """AMI with the NVIDIA driver and Python 3.11 or newer."""
    head_instance: str = "m7i.xlarge"
    """Type of the head node; no trial runs there."""
    worker_instance: str = "g6.xlarge"
    """Type of the GPU workers."""
    worker_cpus: Count = 4
    """CPUs of ``worker_instance``."""
    worker_gpus: Count = 1
    """GPUs of ``worker_instance``."""
    head_profile: str = "vfsearch-head"
    """Instance profile of the head: starts and ends workers, reads and writes the bucket."""
    worker_profile: str = "vfsearch-worker"
    """Instance profile of the workers: the bucket alone."""
    max_spot: Whole = 16
    """Spot workers at most; they are asked for first."""
    max_on_demand: Whole = 4
    """On-demand workers at most; started when spot ones cannot be had."""
    volume_gib: Count = 200
    """Root volume, GiB: environment, decoded corpora, checkpoints."""
    dollars_per_gpu_hour: Positive | None = None
    """What is shown as the price; null: no cost is shown."""


class KubernetesValues(Section):
    """KubeRay 1.7 or newer."""

    namespace: str = "vfsearch"
    """Namespace."""
    service_account: str = "vfsearch"
    """Service account with the IAM role for the bucket."""
    image: str = "registry.example/vfsearch:0.1.0"
    """The image of ``cluster/Dockerfile``."""
    sweep: str = "search_spaces/paper.yaml"
    """Search space of the job, as it lies in the image."""
    arguments: tuple[str, ...] = ("--trials", "64", "--resume")
    """Further arguments of ``vfsearch sweep``."""
    cpus: Count = 8
    """CPUs per worker pod."""
    gpus: Count = 1
    """GPUs per worker pod."""
    memory_gib: Count = 32
    """Memory per worker pod, GiB."""
    max_spot: Whole = 16
    """Spot worker pods at most; they are asked for first."""
    max_on_demand: Whole = 4
    """On-demand worker pods at most."""
    capacity_label: str = "karpenter.sh/capacity-type"
    """Node label that tells spot (``spot``) from on-demand (``on-demand``) nodes."""


class ImageValues(Section):
    """The container image."""

    base: str = "nvidia/cuda:13.0.2-runtime-ubuntu24.04"
    """CUDA runtime; the version of torch's wheels in ``requirements.lock``."""
    python: Annotated[str, Field(pattern=r"^3\.\d+$")] = "3.12"
    """Python of the base's distribution."""
    user: Name = "vfsearch"
    """The user that everything runs as (uid 1000)."""


class ClusterValues(Section):
    """``cluster/values.yaml``."""

    name: Name = "vfsearch"
    """Name of the cluster."""
    environment: str = "~/vfsearch/env"
    """Python environment on every node, made from ``requirements.lock`` where it is missing."""
    variables: dict[VariableName, str] = Field(default_factory=dict)
    """Environment of every node (``MLFLOW_TRACKING_URI``, ``AWS_ENDPOINT_URL``); no secrets."""
    idle_minutes: Positive = 10
    """Minutes after which a worker without work is ended."""
    tls: bool = False
    """Encrypt Ray's own traffic with certificates in ``~/vfsearch/tls`` of every node."""
    local: LocalValues = LocalValues()
    """``cluster/local.yaml``."""
    aws: AwsValues = AwsValues()
    """``cluster/aws.yaml``."""
    kubernetes: KubernetesValues = KubernetesValues()
    """``cluster/kuberay.yaml``."""
    image: ImageValues = ImageValues()
    """``cluster/Dockerfile``."""

    @field_validator("variables")
    @classmethod
    def _no_secrets(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if any(part in name for part in _SECRETS):
                raise ValueError(
                    f"{name} looks like a secret: rendered files are committed; give the nodes a "
                    "role, or local.credentials"
                )
            if any(mark in text for mark in "\n'\"`"):
                raise ValueError(f"{name}: must be one line without quotes")
        return value


def load_values(path: Path) -> ClusterValues:
    """Read the values.

    Raises:
        ConfigError: with every problem of the file at once.
    """
    data, lines = read_yaml(path)
    return validate(ClusterValues, data, str(path), lines)
