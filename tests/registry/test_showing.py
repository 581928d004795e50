"""``vfsearch gallery`` of a run: the page and the film are kept with the run."""

import sys
from pathlib import Path

import pytest
from support.registry_models import Models

from vfsearch.cli import main
from vfsearch.config import CorpusConfig
from vfsearch.tracking.connection import Connection
from vfsearch.tracking.run_key import RunKey


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False])
def test_page_and_film_are_artifacts_of_the_run(
    kept: bool,
    connection: Connection,
    models: Models,
    tiny_corpus: CorpusConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_id = models.run(connection, 1)
    for tag, value in RunKey(sweep="shown", trial=1).tags().items():
        connection.client().set_tag(run_id, tag, value)
    monkeypatch.setattr("vfsearch.cli.evaluation._connect", lambda: connection)
    out = tmp_path / "gallery"
    arguments = [
        "gallery", run_id, "--corpus", tiny_corpus.root, "--probes", 2, "--top", 3, "--out", out,
    ]  # fmt: skip
    sys.argv = ["vfsearch", *map(str, arguments), *([] if kept else ["--no-log"])]
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr().out
    assert not ended.value.code, shown
    store = connection.store(connection.client().get_run(run_id).info.artifact_uri)
    found = {entry.key: entry for entry in store.entries() if entry.key.startswith("gallery/")}
    if not kept:
        assert found == {}
        return
    assert set(found) == {"gallery/gallery.html", "gallery/retrieval_result.mp4"}
    for key, entry in found.items():
        assert entry.size == (out / Path(key).name).stat().st_size
    assert f"{store.root}/gallery" in shown
