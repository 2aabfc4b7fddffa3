"""On a real Ray: two workers on this machine, and a cluster of two nodes in one tree of processes."""

import base64
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx2
import psutil
import pytest
import torch
from PIL import Image
from tiny_diffusion import CALL, tiny_pipeline
from typer.testing import CliRunner

from cogguided import BestOfN, FakeScorer, load_scorer, score_files, stream
from cogguided._cli.app import app
from cogguided._errors import (
    GenerationError,
    InputError,
    MissingExtraError,
    RecordError,
    ScoringError,
    UnknownNameError,
)
from cogguided.integrations.ray import Workers, score_files_on_ray, stream_on_ray
from cogguided.integrations.serving import Limits, start_service
from cogguided.integrations.serving.tokens import digest
from cogguided.pipelines import CogGuidedPipeline, read_candidates
from cogguided.scorers import find_images, load_target

TWO = Workers(count=2)


# ---------------------------------------------------------------------- without Ray


def test_without_ray_there_is_one_clear_error(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r'pip install "cogguided\[ray\]"'):
        score_files_on_ray(["a.png"], "fake")
    said = CliRunner().invoke(app, ["score", "a.png", "--scorer", "fake", "--ray", "local"])
    assert said.exit_code == 1
    assert "cogguided[ray]" in said.output


def test_what_workers_cannot_be_given_is_refused_at_once():
    with pytest.raises(InputError, match="a function that loads one on each worker"):
        score_files_on_ray(["a.png"], FakeScorer())
    with pytest.raises(InputError, match="a function that loads one on each worker"):
        stream_on_ray(CogGuidedPipeline.from_pipe(tiny_pipeline("sd15")), ["a cat"])
    with pytest.raises(InputError, match="count >= 1"):
        Workers(count=0)


# ---------------------------------------------------------------------- on Ray


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A Ray of two cores, that all tests share; its workers come and go."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_AUTO_CONNECT": "0"}
    import ray

    ray.init(num_cpus=2, object_store_memory=200 * 2**20, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(40):
        Image.new("RGB", (8, 8), (6 * i, 40, 255 - 6 * i)).save(folder / f"{i:02}.png")
    (folder / "07.png").write_bytes(b"no picture")
    return folder


def slow_scorer(noted, deadly=""):
    """Return what loads a fake scorer that notes which process scored which file; `deadly`: a file that kills it."""

    def load():
        from cogguided import FakeScorer

        class Noting(FakeScorer):
            batch_size = 4

            def __call__(self, images, prompts=None):
                with open(noted, "a") as file:
                    file.writelines(f"{os.getpid()} {image}\n" for image in images)
                time.sleep(0.2)
                if deadly and any(Path(image).name == deadly for image in images):
                    os.kill(os.getpid(), 9)
                return super().__call__(images, prompts)

        return Noting("noted")

    return load


def processes(noted):
    return {int(line.split()[0]) for line in noted.read_text().splitlines()} if noted.exists() else set()


def actors():
    """The processes of the pool."""
    below = psutil.Process().children(recursive=True)
    return [process.pid for process in below if "BlockActor" in " ".join(process.cmdline())]


def told(scores):
    return [score.to_row() for score in scores]


def test_a_worker_scores_and_one_process_goes_on(here, pictures, tmp_path):
    """The short one, which always runs."""
    files, out = list(find_images([pictures]))[4:10], tmp_path / "scores.csv"
    rows = told(score_files_on_ray(files[:4], "fake", workers=Workers(count=1), out=out))
    assert rows == told(score_files(files[:4], "fake"))
    assert [score.to_row()["file"] for score in score_files(files, "fake", out=out)] == [str(f) for f in files[4:]]
    assert len(out.read_text().splitlines()) == 1 + len(files)


@pytest.mark.slow
def test_scores_are_those_of_one_process_and_either_goes_on(here, pictures, tmp_path):
    files = [*list(find_images([pictures]))[:12], "gone.png"]
    here_, there = tmp_path / "one.csv", tmp_path / "ray.csv"
    assert len(list(score_files(files, "memorability", out=here_))) == 13
    assert len(list(score_files(files[:5], "memorability", out=there))) == 5
    rest = list(score_files_on_ray([*files, files[2]], "memorability", workers=TWO, out=there))
    assert [str(score.file) for score in rest] == [str(file) for file in files[5:]]
    assert list(score_files(files, "memorability", out=there)) == []
    rows, expected = (f.read_text().splitlines() for f in (there, here_))
    assert len(rows) == len(expected) == 14
    for row, other in zip(rows[1:], expected[1:], strict=True):
        name, value, why = row.split(",", 2)
        name_, value_, why_ = other.split(",", 2)
        assert (name, why) == (name_, why_)
        assert value == value_ or float(value) == pytest.approx(float(value_), abs=1e-4)
    with pytest.raises(RecordError, match="other settings"):
        score_files_on_ray(files, "funniness", workers=TWO, out=there)


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(here, pictures, tmp_path):
    noted = tmp_path / "noted.txt"
    out = tmp_path / "scores.parquet"
    scores = score_files_on_ray(find_images([pictures]), slow_scorer(str(noted)), workers=TWO, out=out)
    first = next(scores)
    (victim, *_), before = sorted(processes(noted)), processes(noted)
    os.kill(victim, 9)
    rows = told([first, *scores])
    assert processes(noted) - before, "the dead one was not replaced"
    assert rows == told(score_files(find_images([pictures]), slow_scorer(os.devnull)()))
    import pyarrow.parquet

    assert [row["file"] for row in pyarrow.parquet.read_table(out).to_pylist()] == [row["file"] for row in rows]


@pytest.mark.slow
def test_files_that_kill_every_worker_end_the_run_and_keep_the_others(here, pictures, tmp_path):
    noted, out = tmp_path / "noted.txt", tmp_path / "scores.jsonl"
    files = list(find_images([pictures]))
    with pytest.raises(ScoringError, match="3 Ray workers died of it"):
        list(score_files_on_ray(files, slow_scorer(str(noted), deadly="20.png"), workers=TWO, out=out))
    kept = len(out.read_text().splitlines())
    assert kept == 20
    tries = [line for line in noted.read_text().splitlines() if line.endswith("20.png")]
    assert len(tries) == 3
    rest = list(score_files_on_ray(files, slow_scorer(os.devnull), workers=TWO, out=out))
    assert len(rest) == len(files) - kept


@pytest.mark.slow
def test_a_scorer_that_raises_is_told_with_its_files(here, pictures):
    def load():
        from cogguided import FakeScorer

        def fail(pixels):
            raise RuntimeError("out of luck")

        return FakeScorer("failing", fn=fail)

    files = list(find_images([pictures]))[:3]
    with pytest.raises(ScoringError, match=r"failed on 3 files, .*00\.png to .*02\.png: RuntimeError: out of luck"):
        list(score_files_on_ray(files, load, workers=Workers(count=1)))
    with pytest.raises(InputError, match="pass prompt=, --prompt"):
        score_files_on_ray(files, "clip", workers=Workers(count=1))


@pytest.mark.slow
def test_workers_that_there_is_no_room_for(here):
    with pytest.raises(InputError, match="there are 0 GPUs; lower"):
        score_files_on_ray(["a.png"], "fake", workers=Workers(count=2, gpus=1))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sd15")
    tiny_pipeline("sd15").save_pretrained(folder)
    return folder


PROMPTS = [f"a {what}" for what in ("cat", "dog", "face", "tree", "heart", "lemon", "ghost")]


def content(folder):
    """What a run's folder holds, but for the clock: rows and pixels, sheets, index."""
    found = {}
    for row in read_candidates(folder):
        row.pop("seconds")
        with Image.open(folder / row["file"]) as image:
            found[row["file"]] = (row, image.tobytes())
    sheets = {f.name: f.read_bytes() for f in (folder / "contact_sheets").iterdir()}
    return {**found, **sheets, "index": (folder / "index.html").read_text()}


@pytest.mark.slow
def test_images_are_those_of_one_process_and_either_goes_on(here, model, tmp_path):
    call = {"target": "fake", "guidance": BestOfN(2), "seed": 3, "group": 2, **CALL["sd15"]}
    pipe = CogGuidedPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    list(stream(pipe, PROMPTS, tmp_path / "one/run", **call))

    outputs = stream_on_ray(model, PROMPTS, tmp_path / "ray/run", workers=TWO, **call)
    next(outputs)
    os.kill(actors()[0], 9)
    assert len(list(outputs)) == 3
    assert content(tmp_path / "ray/run") == content(tmp_path / "one/run")

    outputs = stream_on_ray(model, PROMPTS, tmp_path / "cut/run", workers=TWO, **call)
    next(outputs)
    outputs.close()
    with pytest.raises(RecordError, match="resume=True"):
        stream_on_ray(model, PROMPTS, tmp_path / "cut/run", workers=TWO, **call)
    assert len(list(stream(pipe, PROMPTS, tmp_path / "cut/run", resume=True, **call))) == 3
    assert content(tmp_path / "cut/run") == content(tmp_path / "one/run")


@pytest.mark.slow
def test_the_command_line(here, model, pictures, tmp_path):
    run = CliRunner()
    given = [str(file) for file in list(find_images([pictures]))[:9]]
    said = run.invoke(app, ["score", *given, "--scorer", "fake", "--format", "csv", "--ray", "local"])
    alone = run.invoke(app, ["score", *given, "--scorer", "fake", "--format", "csv"])
    assert said.exit_code == alone.exit_code == 0, said.output
    assert said.stdout == alone.stdout
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS[:3]))
    many = ["generate", "--model", str(model), "--prompts", str(tmp_path / "prompts.txt"), "--target", "fake"]
    many += ["--search", "best_of_n", "--n", "2", "--group", "2", "--seed", "3", "--quiet", "--steps", "1"]
    many += ["--size", "16"]
    for name, more in (("ray", ["--ray", "local"]), ("one", [])):
        said = run.invoke(app, [*many, "--out", str(tmp_path / name / "run"), *more])
        assert said.exit_code == 0, said.output
    assert content(tmp_path / "ray/run") == content(tmp_path / "one/run")


@pytest.mark.slow
def test_prompts_that_cannot_be_made_are_told(here, model):
    with pytest.raises(GenerationError, match=r"the pipeline failed on 'a cat': ValueError: .*divisible by 8"):
        list(stream_on_ray(model, ["a cat"], workers=Workers(count=1), **{**CALL["sd15"], "height": 7}))


# ---------------------------------------------------------------------- a service


PICTURES = [Image.new("RGB", (4, 4), (20 * i, 90, 200)) for i in range(12)]
TOKEN = "0123456789abcdef0123"


@pytest.mark.slow
def test_a_service_on_ray_serve(here, model):
    """Requests that arrive together share a pass and each gets its own; what fits no queue is refused."""

    def judge():
        from cogguided import FakeScorer

        class Slow(FakeScorer):
            def __call__(self, images, prompts=None):
                time.sleep(0.5)
                return super().__call__(images, prompts)

        return Slow("slow")

    def painter():
        from cogguided import CogGuidedPipeline

        return CogGuidedPipeline.from_pretrained(str(model), target="fake")

    limits = Limits(queue=8, images=4, wait=0.05, seconds=60)
    service = start_service(judge, digest(TOKEN), painter, port=0, limits=limits)
    try:
        scorer = load_scorer("remote", url=service.url, token=TOKEN, batch_size=1, retries=0)
        expected = FakeScorer()(PICTURES).values
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda picture: scorer([picture]), PICTURES[:8]))
        torch.testing.assert_close(torch.cat([s.values for s in found]), expected[:8], atol=1e-6, rtol=0)
        with ThreadPoolExecutor(12) as pool:
            found = list(pool.map(lambda picture: scorer([picture]), PICTURES))
        refused = [s for s in found if not s.valid.all()]
        assert refused
        assert all("HTTP 503: the queue is full" in s.errors[0] for s in refused)
        for scores, value in zip(found, expected, strict=True):
            assert not scores.valid.all() or abs(float(scores.values[0] - value)) < 1e-6

        bearer = {"Authorization": f"Bearer {TOKEN}"}
        numbers = httpx2.get(service.url + "/metrics", headers=bearer).text
        passes = {k: float(v) for k, v in re.findall(r"cogguided_images_per_pass_(count|sum) ([0-9.]+)", numbers)}
        assert passes["sum"] > passes["count"], "no pass had images of several requests"
        wish = {"prompt": "a cat", "seed": 3, "n": 2, **CALL["sd15"]}
        drawn = httpx2.post(service.url + "/generate", json=wish, headers=bearer, timeout=60).json()["images"]
        pipe = CogGuidedPipeline.from_pretrained(model, target="fake")
        pipe.set_progress_bar_config(disable=True)
        alone = pipe("a cat", seed=3, guidance=BestOfN(2), **CALL["sd15"])
        assert from_png(drawn[0]["png"]) == alone.images[0].tobytes()

        assert httpx2.get(service.url + "/health").json() == {"status": "ok"}
        assert httpx2.post(service.url + "/score", json={}).status_code == 401
        broken = httpx2.post(service.url + "/score", files={"image": b"no picture"}, headers=bearer)
        assert broken.status_code == 422
        assert "no picture in one of PNG" in broken.text
        assert {"server", "content-type"} >= set(broken.headers) - {"date", "content-length", "x-request-id"}
    finally:
        service.close()


@pytest.mark.slow
def test_a_service_of_what_cannot_be_loaded_says_why(here):
    with pytest.raises(UnknownNameError, match="did you mean 'memorability'"):
        start_service(partial(load_target, "memorabilty"), digest(TOKEN), port=0)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InputError, match="choose another --port"):
        start_service(partial(load_target, "fake"), digest(TOKEN), port=taken.getsockname()[1])


def from_png(text):
    return Image.open(io.BytesIO(base64.b64decode(text))).tobytes()


# ---------------------------------------------------------------------- commands of their own


def command(*arguments):
    env = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    call = [sys.executable, "-m", "cogguided", *map(str, arguments)]
    return subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


@pytest.mark.slow
def test_serve_makes_a_token_answers_and_ends_by_sigterm(tmp_path):
    token = tmp_path / "secret/token"
    with command("serve", "--scorer", "fake", "--port", 0, "--token-file", token) as process:
        line = process.stdout.readline()
        url = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert url, line + process.stderr.read()
        scorer = load_scorer(f"remote:{url[0]}", token_file=token)
        torch.testing.assert_close(scorer(PICTURES).values, FakeScorer()(PICTURES).values, atol=1e-6, rtol=0)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=120)[1]
        assert process.returncode == 0, said
    assert token.read_text().strip() in said


@pytest.mark.slow
def test_an_address_where_nobody_is_is_told_soon(pictures):
    started = time.monotonic()
    with command("score", pictures, "--scorer", "fake", "--ray", "127.0.0.1:9") as process:
        said = process.communicate(timeout=120)[1]
        assert process.returncode == 1
    assert "error: no Ray cluster at '127.0.0.1:9'" in said
    assert "'local' needs none" in said
    assert time.monotonic() - started < 100  # Ray itself asks again for many minutes


@pytest.mark.slow
def test_score_on_ray_ends_by_sigterm_with_what_was_scored(tmp_path):
    for i in range(1500):
        Image.new("RGB", (256, 256), (i % 256, 40, 90)).save(tmp_path / f"{i:04}.bmp")
    out = tmp_path / "scores.jsonl"
    with command("score", tmp_path, "--scorer", "clip", "--prompt", "a", "--out", out, "--ray", "local") as process:
        while not (out.exists() and out.stat().st_size):
            time.sleep(0.2)
            assert process.poll() is None, process.stderr.read()
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=120)[1]
        assert process.returncode == 143, said
    kept = len(out.read_text().splitlines())
    assert 0 < kept < 1500
    assert f"interrupted: the scores of {kept} files are kept" in said


# ---------------------------------------------------------------------- a cluster


@pytest.mark.slow
def test_a_cluster_of_two_nodes_of_which_one_is_lost(pictures, tmp_path):
    """Last, as it is a Ray of its own: workers on both nodes; one goes away in the middle, and nothing is lost."""
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_AUTO_CONNECT": "0"}
    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        second = cluster.add_node(**node)
        cluster.wait_for_nodes()
        noted, out = tmp_path / "noted.txt", tmp_path / "scores.jsonl"
        workers = Workers(cluster.address, count=2)
        scores = score_files_on_ray(find_images([pictures]), slow_scorer(str(noted)), workers=workers, out=out)
        first = next(scores)
        while len(processes(noted)) < 2:
            time.sleep(0.1)
        cluster.remove_node(second, allow_graceful=False)
        rows = told([first, *scores])
        assert rows == told(score_files(find_images([pictures]), slow_scorer(os.devnull)()))
    finally:
        ray.shutdown()
        cluster.shutdown()
