"""A cluster of two hosts for the test files that need it, each its own."""

from collections.abc import Iterator

import pytest
from support.cluster_hosts import (
    Lab,
    check_out,
    start_services,
    tiny_space,
    wait_for_services,
    write_space,
)
from support.hosts import hosts, unsupported
from support.small_corpus import small_corpus

EPOCHS = 12
"""Of the trials that are disturbed; the first is over before a disturbance, the last after it."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Head, worker, launching machine, MLflow and S3; the cluster is up, a corpus is on S3."""
    reason = unsupported()
    if reason is not None:
        pytest.skip(f"no test hosts here: {reason}")
    folder = tmp_path_factory.mktemp("hosts")
    names = ["launcher", "head", "worker", "services"]
    with hosts(folder, names, launcher="launcher") as made:
        lab = Lab(made, folder)
        start_services(lab)
        check_out(lab)
        small_corpus(lab.launcher.home / "corpus", identities=16, each=2)
        for name in ("plain", "killed", "unplugged", "notice", "lost", "cut", "slow"):
            write_space(lab, tiny_space(name, epochs=EPOCHS))
        write_space(lab, tiny_space("path", epochs=2, trials=1))
        lab.user("ray", "up", "cluster/local.yaml", "-y", "--no-config-cache")
        wait_for_services(lab)
        lab.user("vfsearch", "corpus", "push", "/root/corpus", "s3://vfsearch/corpora/tiny")
        yield lab
