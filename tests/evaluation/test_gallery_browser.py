"""Page and film of the gallery in a real browser: they play, and ask no one for anything."""

from pathlib import Path

import av
import pytest
from support.browser_fixtures import OpenPage
from support.gallery_corpus import tiny_corpus

from vfsearch.evaluation.gallery import Gallery, build_gallery, write_gallery
from vfsearch.evaluation.video import write_video

pytestmark = pytest.mark.browser


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    corpus = tiny_corpus(tmp_path)
    return build_gallery(corpus.voices, corpus.faces, corpus.names, probes=2, top=5, seed=2)


def test_players_play_one_at_a_time(gallery: Gallery, tmp_path: Path, open_page: OpenPage) -> None:
    opened = open_page(write_gallery(gallery, tmp_path / "out", title="Gallery"))
    page = opened.page
    buttons = page.get_by_role("button")
    assert buttons.count() == 2 + 2 * 5
    for number in (0, 4):
        buttons.nth(number).click()
        page.wait_for_function(
            "n => document.querySelectorAll('audio')[n].currentTime > 0.2", arg=number
        )
    playing = page.evaluate("[...document.querySelectorAll('audio')].map(a => !a.paused)")
    assert [number for number, plays in enumerate(playing) if plays] == [4]
    length = page.evaluate("document.querySelectorAll('audio')[4].duration")
    assert length == pytest.approx(2, abs=0.15)
    page.keyboard.press("Escape")
    assert page.evaluate("[...document.querySelectorAll('audio')].every(a => a.paused)")
    assert opened.requests == []
    assert opened.complaints == []


def test_keyboard_alone_plays(gallery: Gallery, tmp_path: Path, open_page: OpenPage) -> None:
    page = open_page(write_gallery(gallery, tmp_path / "out", title="Gallery")).page
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "BUTTON":
            break
    page.keyboard.press("Space")
    page.wait_for_function(
        "() => document.activeElement.closest('.voice').querySelector('audio').currentTime > 0"
    )
    label = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert label.startswith("Pause probe voice 1 of person")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_marks_on_the_page_are_the_gallerys(
    gallery: Gallery, tmp_path: Path, open_page: OpenPage, scheme: str
) -> None:
    page = open_page(write_gallery(gallery, tmp_path, title="Gallery"), scheme=scheme).page
    for key, found in (("v2f", gallery.v2f), ("f2v", gallery.f2v)):
        shown = page.evaluate(
            """key => [...document.querySelectorAll(`#${key} .hit`)].map(hit => {
              const frame = getComputedStyle(hit.querySelector('.frame'));
              const [r, g] = frame.borderTopColor.match(/\\d+/g).map(Number);
              return [hit.dataset.path, hit.querySelector('.badge').innerText.trim().slice(2),
                      frame.borderTopStyle, r > g ? 'red' : 'green',
                      hit.querySelector('.similarity').innerText];
            })""",
            key,
        )
        expected = [
            [
                hit.path,
                "match" if hit.match else "mismatch",
                "solid" if hit.match else "dashed",
                "red" if hit.match else "green",
                f"{hit.similarity:.3f}".replace("-", "−"),
            ]
            for one in found
            for hit in one.hits
        ]
        assert shown == expected


@pytest.mark.parametrize("width", [360, 800, 1600])
def test_nothing_is_wider_than_the_window(
    gallery: Gallery, tmp_path: Path, open_page: OpenPage, width: int
) -> None:
    page = open_page(write_gallery(gallery, tmp_path, title="Gallery"), width=width).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")


def test_film_plays_in_the_browser(gallery: Gallery, tmp_path: Path, open_page: OpenPage) -> None:
    film = write_video(gallery, tmp_path / "out", title="Gallery")
    # Two probes of 2 s and two pauses of 0.75 s.
    with av.open(str(film)) as container:
        kinds = {stream.type: stream.codec_context.name for stream in container.streams}
        assert kinds == {"video": "h264", "audio": "aac"}
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
        lengths = [float(s.duration * s.time_base) for s in container.streams]
    assert lengths == pytest.approx([5.5, 5.5], abs=0.1)
    content = film.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert [path.name for path in film.parent.iterdir()] == ["retrieval_result.mp4"]
    holder = tmp_path / "out" / "film.html"
    holder.write_text(f"<video src='{film.name}' autoplay muted></video>")
    page = open_page(holder).page
    page.wait_for_function("() => document.querySelector('video').currentTime > 0.4")
    size = page.evaluate(
        "(v => [v.videoWidth, v.videoHeight, v.duration])(document.querySelector('video'))"
    )
    assert size == [1280, 720, pytest.approx(5.5, abs=0.1)]


def test_film_lets_each_voice_be_heard_with_its_own_faces(gallery: Gallery, tmp_path: Path) -> None:
    film = write_video(gallery, tmp_path / "out", title="Gallery")
    with av.open(str(film)) as container:
        energy: dict[int, float] = {}
        for frame in container.decode(audio=0):
            second = int(4 * frame.time)
            energy[second] = energy.get(second, 0.0) + float((frame.to_ndarray() ** 2).sum())
    # Quarter seconds: sound in the middle of each voice (0-2 s, 2.75-4.75 s), silence between.
    assert min(energy[2], energy[13]) > 1
    assert energy[9] < 1e-3 * energy[2]
