"""``vfsearch queries``: generate and check query lists in the released text format."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vfsearch.cli.lists import KIND, read

if TYPE_CHECKING:
    from vfsearch.corpus.strata import Stratum

app = typer.Typer(no_args_is_help=True, help="Generate and check query lists.")


@app.command(
    epilog="Example: vfsearch queries generate --csv corpus/vox1_test.csv --corpus corpus "
    "--out lists --n 2..10 --strata U,G,N,GN --seed 1"
)
def generate(
    csv: Annotated[Path, typer.Option(help="CSV of the split's identities.")],
    corpus: Annotated[Path, typer.Option(help="Corpus folder with wav/ and faces/.")],
    out: Annotated[Path, typer.Option(help="Folder of the lists.")],
    n: Annotated[str, typer.Option(help="Gallery sizes: 2..10, or 2,5,10.")] = "2..10",
    strata: Annotated[
        str, typer.Option(help="Negatives: U all, G same gender, N same nationality, GN both.")
    ] = "U,G,N,GN",
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
) -> None:
    """Write matching, verification and retrieval lists (supplement, section 3)."""
    import numpy as np

    from vfsearch.cli.show import console
    from vfsearch.config import CorpusConfig
    from vfsearch.corpus.layout import scan_csv
    from vfsearch.corpus.queries import write_list
    from vfsearch.corpus.query_generation import Instances
    from vfsearch.corpus.query_generation import generate as make

    split = scan_csv(CorpusConfig(root=corpus), csv.absolute(), "test")
    made = make(
        Instances(
            voice_paths=[voice.path for voice in split.voices],
            voice_identity=np.array([voice.identity for voice in split.voices], np.int64),
            face_paths=[face.path for face in split.faces],
            face_identity=np.array([face.identity for face in split.faces], np.int64),
        ),
        split.identities,
        split=csv.stem.removeprefix("vox1_"),
        n=_sizes(n),
        strata=_strata(strata),
        seed=seed,
    )
    for note in made.notes:
        console.print(f"note: {note}", soft_wrap=True)
    for queries in made.lists:
        console.print(f"{write_list(queries, out)}  {len(queries):,} queries", soft_wrap=True)


def _sizes(text: str) -> list[int]:
    from vfsearch.errors import UsageError

    try:
        first, dots, last = text.partition("..")
        return list(range(int(first), int(last) + 1)) if dots else [int(x) for x in text.split(",")]
    except ValueError:
        raise UsageError(f"--n {text!r}: must be like 2..10 or 2,5,10") from None


def _strata(text: str) -> list["Stratum"]:
    from typing import get_args

    from vfsearch.corpus.strata import Stratum
    from vfsearch.errors import UsageError

    known = {str(name): name for name in get_args(Stratum)}
    unknown = [part for part in text.split(",") if part not in known]
    if unknown:
        raise UsageError(f"--strata {text!r}: {unknown[0]!r} is none of {', '.join(known)}")
    return [known[part] for part in text.split(",")]


@app.command(
    epilog="Example: vfsearch queries check lists/match_v2f_2_test.txt --csv vox1_test.csv"
)
def check(
    lists: Annotated[list[Path], typer.Argument(help="Query lists (.txt or .txt.gz).")],
    csv: Annotated[Path, typer.Option(help="CSV of the identities.")],
    kind: Annotated[str | None, typer.Option(help=KIND)] = None,
) -> None:
    """Validate lists against the identities; exit code 3 if one is wrong."""
    from vfsearch.cli.show import console
    from vfsearch.corpus.layout import read_identities
    from vfsearch.corpus.query_check import check_list

    identities = read_identities(csv)
    wrong = False
    for path in lists:
        queries = read(path, kind)
        problems = check_list(queries, identities)
        wrong = wrong or bool(problems)
        state = "; ".join(problems) if problems else "is valid"
        console.print(
            f"{path}: {queries.kind} {queries.direction}, {len(queries):,} queries, {state}",
            soft_wrap=True,
        )
    raise typer.Exit(3 if wrong else 0)
