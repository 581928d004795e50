"""``vfsearch corpus``: make a synthetic corpus, check any corpus, put one on S3."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Make a synthetic corpus; check any corpus.")


@app.command(epilog="Example: vfsearch corpus synth --out corpus --identities 60 --seed 1")
def synth(
    out: Annotated[Path, typer.Option(help="Folder of the corpus; made whole or not at all.")],
    identities: Annotated[int, typer.Option(help="Identities, all splits together.")],
    voices: Annotated[int, typer.Option(help="Voices (WAV, 16 kHz, 4-10 s) per identity.")] = 6,
    faces: Annotated[int, typer.Option(help="Faces (JPG, 160 px) per identity.")] = 6,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    rho: Annotated[
        str, typer.Option(help="Canonical correlation of each voice-face latent.")
    ] = "0.6,0.5,0.4",
    gender_noise: Annotated[
        float, typer.Option(help="Probability that a modality shows the other gender.")
    ] = 0.02,
    split: Annotated[
        str, typer.Option(help="Shares of identities for training, validation, test.")
    ] = "0.6,0.15,0.25",
    workers: Annotated[int | None, typer.Option(help="Processes; default: one per core.")] = None,
) -> None:
    """Write voices and faces with a known Bayes ceiling, in the VoxCeleb1 / VGGFace layout."""
    from vfsearch.cli.show import bar, console
    from vfsearch.corpus.synth import Recipe, synthesise
    from vfsearch.errors import UsageError

    shares = _numbers("--split", split)
    if len(shares) != 3:
        raise UsageError(f"--split {split!r}: three shares are needed, like 0.6,0.15,0.25")
    recipe = Recipe(
        identities=identities,
        voices=voices,
        faces=faces,
        seed=seed,
        rho=_numbers("--rho", rho),
        gender_noise=gender_noise,
        split=(shares[0], shares[1], shares[2]),
    )
    with bar("identities") as progress:
        made = synthesise(out, recipe, workers=workers, progress=progress)
    state = "is there already" if made.reused else "written"
    train, val, test = recipe.counts()
    console.print(
        f"{made.root}: {identities} identities ({train} train, {val} val, {test} test), "
        f"{voices} voices and {faces} faces each, {state}",
        soft_wrap=True,
    )


def _numbers(option: str, text: str) -> tuple[float, ...]:
    from vfsearch.errors import UsageError

    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} {text!r}: must be numbers with commas between") from None


@app.command(epilog="Example: vfsearch corpus check corpus   (exit code 3 if training would fail)")
def check(
    corpus: Annotated[Path, typer.Argument(help="Corpus folder.")],
    audio: Annotated[Path, typer.Option(help="Audio root, in the corpus folder.")] = Path("wav"),
    images: Annotated[Path, typer.Option(help="Image root.")] = Path("faces"),
    show: Annotated[int, typer.Option(help="Unusable files to list per split.")] = 20,
) -> None:
    """Decode every file; list what is missing or unreadable, by split."""
    from vfsearch.cli.show import bar, console, table
    from vfsearch.config import CorpusConfig
    from vfsearch.corpus.check import check_corpus

    config = CorpusConfig(root=corpus, audio=audio, images=images)
    with bar("files") as progress:
        report = check_corpus(config, lambda _split, done, total: progress(done, total))
    console.print(
        table(
            str(corpus),
            ["split", ">identities", ">voices", ">faces", ">unusable", "training"],
            [
                (
                    split.name,
                    split.identities,
                    split.voices,
                    split.faces,
                    len(split.excluded),
                    "would fail" if split.problem else "works",
                )
                for split in report.splits
            ],
        )
    )
    for split in report.splits:
        for path, reason in split.excluded[:show]:
            console.print(f"{path}: {reason}", soft_wrap=True)
        if len(split.excluded) > show:
            console.print(f"... and {len(split.excluded) - show} more in {split.name}")
        if split.problem:
            console.print(split.problem, soft_wrap=True)
    for line in report.shared:
        console.print(f"{line}: an identity may be in one split only", soft_wrap=True)
    raise typer.Exit(0 if report.ok else 3)


@app.command(
    epilog="Example: vfsearch corpus features corpus --voice small --voice-weights v.safetensors "
    "--face small --face-weights f.safetensors --out features   (then: corpus.features: features)"
)
def features(
    corpus: Annotated[Path, typer.Argument(help="Corpus folder.")],
    voice: Annotated[str, typer.Option(help="Voice encoder, as in model.voice.encoder.")],
    face: Annotated[str, typer.Option(help="Face encoder, as in model.face.encoder.")],
    out: Annotated[Path, typer.Option(help="Folder of features; made whole or not at all.")],
    voice_weights: Annotated[str | None, typer.Option(help="Weights of the voice encoder.")] = None,
    face_weights: Annotated[str | None, typer.Option(help="Weights of the face encoder.")] = None,
    seconds: Annotated[float, typer.Option(help="Window at the start of each voice.")] = 10.0,
    face_size: Annotated[int, typer.Option(help="Side of the faces, pixels.")] = 112,
    split: Annotated[
        list[str] | None, typer.Option(help="Split; repeat for several; default: all three.")
    ] = None,
    audio: Annotated[Path, typer.Option(help="Audio root, in the corpus folder.")] = Path("wav"),
    images: Annotated[Path, typer.Option(help="Image root.")] = Path("faces"),
) -> None:
    """Encode every file once, to train on what frozen encoders made of them."""
    from vfsearch.cli.evaluation import split_name
    from vfsearch.cli.show import bar, console, table
    from vfsearch.config import CorpusConfig, FaceConfig, VoiceConfig, validate
    from vfsearch.corpus.features import open_features
    from vfsearch.corpus.layout import SPLITS
    from vfsearch.evaluation.extract import extract

    data = {"root": corpus, "audio": audio, "images": images, "face_size": face_size}
    config = validate(CorpusConfig, data, "corpus features", {})
    heard = {"encoder": voice, "weights": voice_weights, "frozen": True}
    seen = {"encoder": face, "weights": face_weights, "frozen": True}
    with bar("files") as progress:
        made = extract(
            config,
            validate(VoiceConfig, heard, "--voice", {}),
            validate(FaceConfig, seen, "--face", {}),
            out,
            splits=[split_name(name) for name in split or SPLITS],
            audio_seconds=seconds,
            progress=progress,
        )
    rows = []
    for name in made.splits:
        there = open_features(out, name)
        voices, faces = there.voice_features, there.face_features
        rows.append((name, len(there.identities), *voices.shape, *faces.shape))
    columns = ["split", ">identities", ">voices", ">dimensions", ">faces", ">dimensions"]
    console.print(table(str(out), columns, rows))


@app.command(epilog="Example: vfsearch corpus discriminants features --out discriminants")
def discriminants(
    statistics: Annotated[Path, typer.Argument(help="Features by the encoders 'statistics'.")],
    out: Annotated[Path, typer.Option(help="Folder to make: weights and projected features.")],
) -> None:
    """Reduce statistics to what tells the training identities apart; no encoding again."""
    from vfsearch.cli.show import console
    from vfsearch.evaluation.discriminants import FEATURES, write_discriminants

    with console.status("fitting"):
        made = write_discriminants(statistics, out)
    console.print(f"{out / FEATURES}: {made.voice.dim} dimensions each", soft_wrap=True)


@app.command(epilog="Example: vfsearch corpus push corpus s3://vfsearch/corpora/first")
def push(
    corpus: Annotated[Path, typer.Argument(help="Corpus folder.")],
    address: Annotated[str, typer.Argument(help="s3://bucket/prefix, then corpus.root of runs.")],
) -> None:
    """Put a corpus on S3, from where every node of a cluster fetches it once."""
    from vfsearch.cli.show import bar, console, size
    from vfsearch.config import TrackingConfig, home
    from vfsearch.tracking.artifacts import ArtifactStore
    from vfsearch.tracking.connection import storage_of
    from vfsearch.tracking.corpora import push as run

    with bar("bytes") as progress:
        new = run(corpus, ArtifactStore(address, storage_of(TrackingConfig(), home())), progress)
    console.print(f"{address}: {size(new)} sent; use it as corpus.root", soft_wrap=True)
