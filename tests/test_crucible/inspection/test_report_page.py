"""What `crucible report` tells, and what it does not give away."""

import html
import itertools
import json
import os
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
import viewer_runs

import crucible
from crucible.cli.main import main
from crucible.inspection.report import page, pictures
from crucible.inspection.report.asking import looked_at, story_of
from crucible.inspection.report.captions import CAPTIONS, caption_of
from crucible.inspection.report.words import key_figures
from crucible.inspection.summary import motion_words, populations_together
from crucible.units import counted
from store.reading.lazy import CommittedArray
from store.reading.reader import open_trajectory

OF_PUSH = {"push", "headroom"}
VOID = {"meta", "link", "br"}
PRIVATE, HOST = "/home/ada/secret", "adas-own-machine"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that calms down, whose configuration names paths and a host."""
    config = {
        "experiment": "A <b>bold</b> one", "corpus": f"{PRIVATE}/corpus.txt", "host": HOST,
        "optimizer": "AdamW", "learning_rate": 0.003, "total_steps": 240,
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("ada") / "first"
    return viewer_runs.record(folder, viewer_runs.states(240), attributes={"config": config})


@pytest.fixture(scope="module")
def told(run, tmp_path_factory):
    """The page, and the folder of its pictures."""
    folder = tmp_path_factory.mktemp("report")
    crucible.report(run, folder / "report.html", figures=folder / "figures")
    return (folder / "report.html").read_text(), folder / "figures"


class Tags(HTMLParser):
    """Elements that are open, those that were closed out of order, and all attributes."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.found = [], [], []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()
        else:
            self.wrong.append(tag)


def tags(text):
    parser = Tags()
    parser.feed(text)
    assert (parser.open, parser.wrong) == ([], [])
    return parser.found


def test_the_page_is_whole_and_asks_nothing_of_any_network(told):
    text, _ = told
    for tag, attributes in tags(text):
        assert tag not in {"script", "iframe", "object", "embed"}
        for name in ("src", "href", "xlink:href", "data"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text


def test_ids_of_pictures_never_meet(told):
    ids = [attributes["id"] for _, attributes in tags(told[0]) if "id" in attributes]
    assert len(set(ids)) == len(ids)
    used = set(re.findall(r'url\(#([^)]+)\)|xlink:href="#([^"]+)"', told[0]))
    assert {one or other for one, other in used} <= set(ids)


def test_the_verdict_is_one_sentence_on_top_with_four_figures(told):
    heads = re.findall(r"<h1>(.*?)</h1>", told[0])
    assert len(heads) == 1
    assert heads[0].count(".") == 1
    assert len(re.findall(r"<dt>", told[0])) == 4
    assert re.search(r"240 steps · 40 tokens · motion is L2 &gt;= 0.1 cells · files of \d{4}-\d\d-\d\d", told[0])
    assert "A &lt;b&gt;bold&lt;/b&gt; one" in told[0]
    assert f"version {crucible.__version__}" in told[0]


def test_every_picture_has_a_caption_that_defines_words_and_an_alternative_with_numbers(told):
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", told[0])
    alternatives = [a["aria-label"] for tag, a in tags(told[0]) if tag == "div" and a.get("role") == "img"]
    assert len(captions) == len(alternatives) == len(pictures.PICTURES) - len(OF_PUSH) == 11
    for caption, alternative in zip(captions, alternatives, strict=True):
        assert len(caption) > 150
        assert re.search(r"\d", alternative)
        assert "nan" not in alternative.lower()
    assert set(CAPTIONS) == {picture.name for picture in pictures.PICTURES}


def captions_of(rows, folder, **options):
    """The captions of the pictures that speak of silence and of the loss."""
    story = story_of(open_trajectory(viewer_runs.record(folder, rows, **options)))
    return [caption_of(name, story) for name in ("cooling", "lifecycle", "cloud")]


@pytest.mark.filterwarnings("ignore:no token moved")
def test_a_caption_says_of_this_run_whether_there_is_a_silence(tmp_path):
    """Of a run that moved at its last step, or never, it told of a grey silence "since the last motion, never"."""
    walk = viewer_runs.states(240)
    moving = walk[: int(np.flatnonzero((walk[1:] != walk[:-1]).any(axis=(1, 2)))[-1]) + 2]
    assert (
        "Something moved at the last step, so that no silence is grey." in captions_of(moving, tmp_path / "moving")[0]
    )
    resting = np.concatenate([moving, moving[-1:]])
    rests = captions_of(resting, tmp_path / "resting")
    assert f"Grey is the silence since the last motion, {len(moving) - 1:,}." in rests[0]
    never = captions_of(np.repeat(walk[:1], 9, axis=0), tmp_path / "never")
    assert "Nothing moved." in never[0]
    assert "last moves" not in never[2]


def test_a_caption_tells_of_a_loss_only_where_one_was_logged(tmp_path, monkeypatch):
    """A loop that logs none has an array of NaN, which was drawn as empty axes from 0 to 1."""
    assert "the *loss* of each step" in captions_of(viewer_runs.states(30), tmp_path / "logged")[1]
    run = tmp_path / "silent"
    with viewer_runs.create(run, viewer_runs.states(30)) as writer:
        viewer_runs.append_without_loss(writer, viewer_runs.states(30))
        writer.complete()
    story = story_of(open_trajectory(run))
    assert "No step has a loss that is a number" in caption_of("lifecycle", story)
    monkeypatch.setattr(pictures.plots, "loss", None)  # it would fail if it were drawn
    drawn = next(each for each in pictures.PICTURES if each.name == "lifecycle").draw(story, 7.6)
    assert [axes.axison for axes in drawn.axes] == [True, False]


def test_what_leaves_the_machine_names_no_path_no_host_and_no_user(run, told):
    text, folder = told
    everything = [text.encode(), *(path.read_bytes() for path in folder.iterdir())]
    for words in (PRIVATE, HOST, str(run.parent), str(folder.parent), "/tmp/", "/home/", "/root"):
        assert not any(words.encode() in data for data in everything), words
    assert "corpus.txt" in text


def test_the_last_movers_are_listed_with_their_steps(run, told):
    last = open_trajectory(run).last_motion_step.load()
    first = int(last.token[int(last.values.argmax())])
    assert re.search(rf"<th>{first}</th><td class=\"number\">{int(last.max())}</td>", told[0])


def test_each_picture_is_written_in_three_forms(told):
    names = {path.name for path in told[1].iterdir()}
    expected = {picture.name for picture in pictures.PICTURES} - OF_PUSH
    assert names == {f"{name}{end}" for name in expected for end in ("@200.png", "@72.png", ".svg")}
    sizes = [(told[1] / f"cooling@{dpi}.png").read_bytes()[16:24] for dpi in (200, 72)]
    wide, small = (int.from_bytes(size[:4], "big") for size in sizes)
    assert (wide, small) == (1520, 547)


def test_files_that_are_there_are_refused_before_anything_is_drawn(run, tmp_path, monkeypatch):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "lattice@72.png").write_text("mine")
    monkeypatch.setattr(pictures.plots, "stack", None)
    with pytest.raises(FileExistsError, match=r"lattice@72\.png"):
        crucible.report(run, tmp_path / "report.html", figures=tmp_path / "figures")
    assert not (tmp_path / "report.html").exists()


def test_no_html_is_written_under_the_name_of_another_kind_of_file(run, tmp_path):
    with pytest.raises(ValueError, match=r"report\.pdf: a report is HTML; name a file that ends in \.html"):
        crucible.report(run, tmp_path / "report.pdf")
    assert not (tmp_path / "report.pdf").exists()


def test_colours_are_those_of_the_page_which_has_others_in_the_dark(told):
    assert "prefers-color-scheme: dark" in told[0]
    assert "break-inside: avoid" in told[0]
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in told[0]
    drawn = "".join(re.findall(r"<svg.*?</svg>", told[0], re.DOTALL))
    for light, _ in page.PALETTE.values():
        assert f": {light}" not in drawn
    for name in set(re.findall(r"var\(--([a-z]+)\)", told[0])):
        assert f"--{name}:" in told[0]


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(run, told, tmp_path):
    crucible.report(run, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == told[0]


def test_the_date_is_said_to_be_that_of_the_files(tmp_path):
    """A run that was copied or downloaded bears the day of that; nothing tells when it was trained."""
    run = viewer_runs.record(tmp_path / "run", viewer_runs.states(20))
    os.utime(run / "trajectory.zarr" / "zarr.json", (10**9, 10**9))
    crucible.report(run, tmp_path / "report.html")
    assert re.search(r" · files of 2001-09-09(<| ·)", (tmp_path / "report.html").read_text())


@pytest.mark.slow
def test_several_runs_are_overlaid_and_listed(tmp_path, capsys):
    runs = [viewer_runs.record(tmp_path / name, viewer_runs.states(steps, seed=steps)) for name, steps in
            (("a", 120), ("b", 150), ("c", 120))]  # fmt: skip
    out = tmp_path / "three.html"
    assert main(["report", *map(str, runs), "--out", str(out), "--figures", str(tmp_path / "figures")]) == 0
    text = out.read_text()
    tags(text)
    assert re.search(r"<h1>\d of 3 runs are frozen", text)
    assert re.findall(r"<tbody><tr><th>(\w)</th>", text) == ["a"]
    assert text.count("mean of 3 runs") == 2 * 5
    assert text.count("geometric mean of 3 runs") == 2 * 2
    assert text.count("mean of 2 runs") == 2 * 2  # the second and the third, each beside the first
    assert {path.stem for path in (tmp_path / "figures").glob("*.svg")} == {
        "survival-of-runs", "moving-of-runs", "largest-of-runs", "loss-of-runs", "drift-of-runs", "apart-of-runs",
    }  # fmt: skip
    assert str(tmp_path) not in text
    assert "report: " in capsys.readouterr().out


@pytest.mark.slow
def test_two_runs_are_shown_as_they_part(tmp_path):
    rows = viewer_runs.states(200)
    others = rows.copy()
    others[150:, 3] ^= 1
    runs = [viewer_runs.record(tmp_path / name, each) for name, each in (("a", rows), ("b", others))]
    crucible.report(runs, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "How far they are apart" in text
    by = next(int(step) for step in looked_at(np.ones(201, bool)) if step >= 150)
    assert f"Apart by step {by}, in up to 2.50% of the weights" in text
    assert "b: 2.50% of the weights at step 200, 1 hop apart in the median, 1 at most" in text
    crucible.report(runs, tmp_path / "part.html", steps=(0, 161))
    assert "Apart from step 150 on" in (tmp_path / "part.html").read_text()


@pytest.mark.slow
def test_runs_that_cannot_be_compared_are_named(tmp_path):
    shapes = (("a", 8), ("b", 9), ("c", 8))
    runs = [viewer_runs.record(tmp_path / name, viewer_runs.states(20, tokens=tokens)) for name, tokens in shapes]
    crucible.report(runs, tmp_path / "three.html")
    assert "for other tokens, steps or number formats: b." in (tmp_path / "three.html").read_text()
    crucible.report(runs[:2], tmp_path / "two.html")
    assert "How far they are apart" not in (tmp_path / "two.html").read_text()


@pytest.mark.slow
def test_runs_of_one_name_are_told_apart(tmp_path):
    runs = [viewer_runs.record(tmp_path / name / "run", viewer_runs.states(30)) for name in ("a", "b")]
    again = viewer_runs.record(tmp_path / "other" / "a" / "run", viewer_runs.states(30))
    crucible.report([*runs, again], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert all(f"<th>{name}</th>" in text for name in ("a/run (1)", "b/run", "a/run (2)"))


HARD = {
    "one token": viewer_runs.states(20, tokens=1),
    "one step": viewer_runs.states(1),
    "one hidden dimension": viewer_runs.states(20, hidden=1),
    "float32": viewer_runs.states(20, dtype=np.float32),
    "never moved": np.repeat(viewer_runs.states(0), 20, axis=0),
}


@pytest.mark.filterwarnings("ignore:no token moved")
@pytest.mark.parametrize(
    "rows",
    [pytest.param(rows, id=name, marks=pytest.mark.slow) for name, rows in HARD.items()],
)
def test_runs_at_the_edge_have_a_page(rows, tmp_path):
    run = viewer_runs.record(tmp_path / "run", rows)
    crucible.report(run)
    text = (run / "report.html").read_text()
    tags(text)
    assert "nan" not in html.unescape(re.sub(r"<[^>]*>", " ", text)).lower().split()


@pytest.mark.slow
def test_weights_that_diverged_have_a_page_that_says_so_first(tmp_path):
    rows = viewer_runs.states(30)
    rows[12:, 3] = 0x7FC0
    run = viewer_runs.record(tmp_path / "run", rows)
    crucible.report(run)
    text = (run / "report.html").read_text()
    assert "<h1>The run diverged at step 12: " in text
    assert text.count("Diverged at step 12: weights are NaN or infinite") > 5


def test_the_weights_are_looked_at_where_something_moved():
    moving = np.zeros(5001, bool)
    moving[1:1000] = moving[4321] = True
    chosen = looked_at(moving)
    assert {0, 1, 4321, 5000} <= set(chosen.tolist())
    assert len(chosen) < 230
    assert all(moving[position] for position in chosen if position not in (0, 5000))


def test_each_array_is_read_once(run, monkeypatch):
    reads = Counter()
    original = CommittedArray.__getitem__

    def counted(self, key):
        reads[self.array.name, str(key)] += 1
        return original(self, key)

    monkeypatch.setattr(CommittedArray, "__getitem__", counted)
    story_of(open_trajectory(run))
    names = {name for name, _ in reads}
    assert {"W", "displacement_l1", "displacement_l2", "displacement_linf", "centroid", "loss"} == names - {"dead_mask"}
    twice = [(name, key) for (name, key), count in reads.items() if count > 1]
    of_tokens = {"dead_mask"}  # who they are, before anything is asked of them
    assert {name for name, _ in twice} <= {"W"} | of_tokens, twice  # and of W the last block only, once for each pass
    assert len(twice) <= 2


def test_the_answers_of_a_report_are_those_of_analyze(run):
    story = story_of(open_trajectory(run))
    told = crucible.analyze(run)
    assert told.pop("part") is None
    assert json.dumps(story.told) == json.dumps(told)


def test_every_answer_names_the_step_since_which_weights_are_not_finite(tmp_path, monkeypatch):
    monkeypatch.setattr("crucible.inspection.report.asking.STATES", 4)
    monkeypatch.setattr("crucible.inspection.report.asking.LATE", 1)
    rows = viewer_runs.states(60, tokens=6)
    rows[31:, 2] = 0x7FC0
    story = story_of(open_trajectory(viewer_runs.record(tmp_path / "run", rows)))
    assert 31 not in story["cloud"]["step"]
    named = {
        name: int(answer["first_nonfinite"]) for name, answer in story.answers.items() if "first_nonfinite" in answer
    }
    assert {"cloud", "exponents", "identical_rows", "cooling", "drift"} <= set(named)
    assert set(named.values()) == {31}


@pytest.mark.slow
def test_a_report_looks_for_no_cluster(run, tmp_path):
    pytest.importorskip("distributed", reason="needs the extra 'cluster'")
    code = "import sys, crucible; crucible.report(*sys.argv[1:]); sys.exit('distributed' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, run, tmp_path / "report.html"], check=True)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("how", [{"norm": "linf", "threshold": 1.5}, {}, {"norm": "l1", "threshold": 0.5}], ids=str)
def test_what_counts_as_motion_is_that_of_analyze_and_is_said(how, run, tmp_path, monkeypatch):
    monkeypatch.setattr("crucible.inspection.report.pictures.PICTURES", ())
    told = crucible.analyze(run, **how)
    flags = [word for name, value in how.items() for word in (f"--{name}", str(value))]
    assert main(["report", str(run), "--out", str(tmp_path / "report.html"), *flags]) == 0
    text = html.unescape((tmp_path / "report.html").read_text())
    assert f"motion is {told['norm'].capitalize()} >= {told['threshold']:.7g} cells" in text
    story = story_of(open_trajectory(run), **how)
    assert json.dumps(story.told | {"part": None}, sort_keys=True) == json.dumps(told, sort_keys=True)
    for answer in (story["last_motion"], story["stratigraphy"]):
        assert int(answer["last_motion"].max()) == told["global_last_motion"]
    by = story["cooling"].attrs
    assert (by["norm"], by["threshold"]) == (told["norm"], float(np.float32(told["threshold"])))
    assert f"the last at which it moved by {motion_words(told)}." in caption_of("stratigraphy", story)


@pytest.mark.slow
def test_every_other_norm_stands_beside_the_one_that_is_asked(run):
    for norm in ("l1", "l2", "linf"):
        answers = story_of(open_trajectory(run), norm=norm).answers
        others = {name for name in answers if name.startswith("cooling_")}
        assert others == {f"cooling_{each}" for each in {"l1", "l2", "linf"} - {norm}}


@pytest.mark.slow
def test_populations_that_are_mixed_are_said_on_top(run, tmp_path, monkeypatch):
    monkeypatch.setattr("crucible.inspection.report.pictures.PICTURES", ())
    names = np.where(np.arange(40) < 10, "dead", "live")
    ds = open_trajectory(run).assign_coords(population=("token", names))
    monkeypatch.setattr("crucible.inspection.report.writing.open_trajectory", lambda _: ds)
    crucible.report(run, tmp_path / "report.html")
    text = html.unescape((tmp_path / "report.html").read_text())
    assert populations_together(story_of(ds).told) in text.split("<details>")[0]
    crucible.report(run, tmp_path / "report.html", population="dead", force=True)
    assert " together, so that" not in (tmp_path / "report.html").read_text()


def test_the_numbers_in_words_are_those_of_plain_loops_over_the_bits(run):
    rows = viewer_runs.states(240)
    moved = [[bool((now[i] != before[i]).any()) for i in range(40)] for before, now in itertools.pairwise(rows)]
    freeze = sorted(max(step for step, row in enumerate(moved, 1) if row[i]) for i in range(40))
    busy = [step for step, row in enumerate(moved, 1) if any(row)]
    gaps = [later - step - 1 for step, later in itertools.pairwise([0, *busy, 241])]
    silences = sorted((gap for gap in gaps if gap), reverse=True)
    last = viewer_runs.as_float(rows[-1])
    spread = np.sqrt(((last - last.mean(axis=0, dtype=float)) ** 2).sum(axis=1).mean())
    groups = Counter(row.tobytes() for row in rows[-1])
    story = story_of(open_trajectory(run))
    said = {picture.name: picture.alt(story) for picture in pictures.of_story(story)}
    assert f"earliest {freeze[0]}, median {freeze[19]}, latest {freeze[-1]}" in said["stratigraphy"]
    assert f"moved at {counted(sum(map(all, moved)), 'step')}, some at {len(busy)} steps of 240." in said["cooling"]
    assert f"{busy[-1]}, {counted(sum(moved[busy[-1] - 1]), 'token')} moved." in said["cooling"]
    assert "The loss went from 8 to 3.02." in said["lifecycle"]
    assert f"Freeze steps of 40 tokens: earliest {freeze[0]}," in said["survival"]
    assert f"{len(silences)} silences; the longest, in steps: {', '.join(map(str, silences[:3]))}." in said["silences"]
    assert f"goes on is {counted(240 - busy[-1], 'step')} long" in said["silences"]
    assert re.search(rf"RMS radius went from [\d.]+ to {spread:.4g},", said["cloud"])
    assert f"{len(groups)} of 40 rows are distinct" in said["lattice"]
    assert f"has {counted(max(groups.values()), 'token')}." in said["lattice"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:no token moved")
def test_words_of_a_run_without_motion_or_with_gaps_are_true(tmp_path):
    rows = viewer_runs.states(40, tokens=6)
    still = story_of(open_trajectory(viewer_runs.record(tmp_path / "still", rows[[0] * 5])))
    said = {picture.name: picture.alt(still) for picture in pictures.of_story(still)}
    assert said["cooling"] == "None of 6 tokens moved at any of 4 steps."
    assert said["lifecycle"].startswith("Half or more never were in: supernova, cooling, stumbling.")
    assert key_figures(still.told)[3] == ("half were frozen by", "the start", "nothing moved")
    rows[20:, 1] = 0x7FC0
    broken = story_of(open_trajectory(viewer_runs.record(tmp_path / "broken", rows)))
    assert not [text for text in (p.alt(broken) for p in pictures.of_story(broken)) if "nan" in text.split()]


@pytest.mark.slow
def test_missing_steps_are_said_on_top(run, tmp_path, monkeypatch):
    monkeypatch.setattr("crucible.inspection.report.pictures.PICTURES", ())
    some = open_trajectory(run).isel(step=slice(0, None, 5))
    monkeypatch.setattr("crucible.inspection.report.writing.open_trajectory", lambda _: some)
    crucible.report(run, tmp_path / "report.html")
    top = (tmp_path / "report.html").read_text().split("<details>")[0]
    assert "Recorded states are up to 5 steps apart: a motion came up to 4 steps before" in top


@pytest.mark.slow
def test_runs_of_other_thresholds_or_not_completed_are_named(tmp_path):
    one = viewer_runs.record(tmp_path / "one", viewer_runs.states(30), complete=False)
    two = viewer_runs.record(tmp_path / "two", viewer_runs.states(20), attributes={"motion_threshold": 2.0})
    crucible.report([one, two], tmp_path / "both.html")
    text = html.unescape((tmp_path / "both.html").read_text())
    assert "Motion is not the same in all: L2 >= 0.1 cells in one; L2 >= 2 cells in two." in text
    assert "Not completed, so that all of this is as of the last commit: one." in text
