"""The command line as a user meets it: examples in the help, one message and a code per mistake."""

import json
import re
import socket
from pathlib import Path

import pytest
import yaml
from support.command_line import complains, run
from support.small_corpus import small_corpus

from vfsearch.cli import app

SPACES = Path(__file__).parents[2] / "search_spaces"


def _commands() -> list[str]:
    """Every command, ``stack up`` for one of a group."""
    found = []
    for prefix, group in [
        ("", app),
        *((f"{g.name} ", g.typer_instance) for g in app.registered_groups),
    ]:
        for info in group.registered_commands if group else []:
            assert info.callback is not None
            found.append(prefix + (info.name or info.callback.__name__))
    return found


@pytest.mark.parametrize("command", _commands())
def test_every_help_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *command.split(), "--help")
    assert code == 0
    assert re.search(rf"Examples?:\s+vfsearch\s+{command.split()[0]}", out), out


def test_an_unknown_key_and_a_wrong_type_are_told_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("corpus: {root: x}\nloss:\n  margn: 5\n  margin: high\n")
    result = run(capsys, "train", file)
    complains(result, 2, f"{file}:3: loss.margn: is no setting", f"{file}:4: loss.margin: 'high'")


def test_an_empty_range_names_both_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = yaml.safe_load((SPACES / "demo.yaml").read_text())
    space["parameters"]["loss.margin"] = {"type": "float", "low": 8.0, "high": 1.0}
    file = tmp_path / "space.yaml"
    file.write_text(yaml.safe_dump(space))
    complains(run(capsys, "space", "check", file), 2, "low", "8.0", "1.0", "loss.margin")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["train", "missing.yaml"], 2),
        (["sweep", "missing.yaml"], 2),
        (["space", "check", "missing.yaml"], 2),
        (["corpus", "check", "missing"], 3),
        (["queries", "check", "match_v2f_2.txt", "--csv", "missing.csv"], 3),
        (["evaluate", "missing.npz", "--csv", "a.csv", "--queries", "match_v2f_2.txt"], 3),
        (["evaluate", "missing.npz"], 2),
        (["compare", "one.npz"], 2),
        (["trials", "missing"], 6),
        (["report", "missing"], 6),
        (["promote", "missing"], 6),
        (["history"], 5),
        (["stack", "init", "--bucket", "b", "--settings", "missing"], 2),
        (["stack", "backup", "--out", "copies"], 5),
        (["stack", "backup", "--out", "copies", "--bucket", "b"], 2),
        (["stack", "restore", "missing"], 2),
        (["stack", "init", "--bucket", "b", "--endpoint", "http://x", "--require-tls"], 2),
        (["corpus", "synth", "--out", "c", "--identities", "2"], 2),
        (["corpus", "synth", "--out", "c", "--identities", "60", "--rho", "a,b"], 2),
    ],
)
def test_what_is_missing_or_wrong_ends_with_its_code(
    arguments: list[str],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(capsys, *arguments)
    assert result[0] == code, result
    assert "Traceback" not in result[1] + result[2]
    assert not list(tmp_path.iterdir())


def test_a_sync_with_nothing_to_send_needs_no_server(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "sync")
    assert (code, err) == (0, "")
    assert out.startswith("0 runs sent")


def test_an_unreachable_tracking_server_is_told_before_anything_starts(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_corpus(tmp_path / "corpus")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    result = run(
        capsys, "sweep", SPACES / "demo.yaml", "--set", f"corpus.root={tmp_path / 'corpus'}",
        "--set", f"tracking.uri={address}",
    )  # fmt: skip
    complains(result, 5, address)
    assert not (home / "sweeps" / "demo" / "trials").exists()


def test_a_corpus_without_faces_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "corpus"
    small_corpus(corpus)
    (corpus / "faces").rename(corpus / "elsewhere")
    code, out, _ = run(capsys, "corpus", "check", corpus)
    assert code == 3
    assert "faces" in out
    assert "would fail" in out


def test_an_unwritable_output_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "corpus"
    result = run(capsys, "corpus", "synth", "--out", out, "--identities", 20)
    assert result[0] in (1, 3)
    assert str(out) in result[2]
    assert "Traceback" not in result[2]


def test_evaluating_stored_embeddings_writes_the_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np

    corpus = tmp_path / "corpus"
    small_corpus(corpus)
    lists = tmp_path / "lists"
    made = run(
        capsys, "queries", "generate", "--csv", corpus / "vox1_test.csv", "--corpus", corpus,
        "--out", lists, "--n", "2", "--strata", "U",
    )  # fmt: skip
    assert made[0] == 0, made
    checked = run(
        capsys, "queries", "check", *sorted(lists.iterdir()), "--csv", corpus / "vox1_test.csv"
    )
    assert checked[0] == 0, checked
    paths = [p.relative_to(corpus / "wav").as_posix() for p in corpus.rglob("*.wav")]
    paths += [p.relative_to(corpus / "faces").as_posix() for p in corpus.rglob("*.jpg")]
    np.savez(tmp_path / "e.npz", path=np.array(paths), embedding=np.ones((len(paths), 8), "f4"))
    # As a shell expands --queries lists/*.txt, into a folder that is not there yet.
    document_path = tmp_path / "results" / "out.json"
    result = run(
        capsys, "evaluate", tmp_path / "e.npz", "--queries", *sorted(lists.iterdir()), "--csv",
        corpus / "vox1_test.csv", "--json", document_path, "--bootstrap", "20",
    )  # fmt: skip
    assert result[0] == 0, result
    document = json.loads(document_path.read_text())
    for entry in document["lists"]:
        for name, value in entry["metrics"].items():
            assert value == pytest.approx(entry["chance"][name], abs=1e-9)


def test_a_kind_given_by_hand_tells_the_direction_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "corpus"
    small_corpus(corpus)
    csv = corpus / "vox1_test.csv"
    made = run(
        capsys, "queries", "generate", "--csv", csv, "--corpus", corpus, "--out", tmp_path,
        "--n", "2", "--strata", "U",
    )  # fmt: skip
    assert made[0] == 0, made
    mine = (tmp_path / "match_f2v_2_test.txt").rename(tmp_path / "mine.txt")
    told = run(capsys, "queries", "check", mine, "--csv", csv, "--kind", "match_f2v")
    assert told[0] == 0, told
    assert "match f2v" in told[1]
    complains(run(capsys, "queries", "check", mine, "--csv", csv, "--kind", "match"), 3, "v2f")
    complains(run(capsys, "queries", "check", mine, "--csv", csv, "--kind", "f2v"), 2, "--kind")
