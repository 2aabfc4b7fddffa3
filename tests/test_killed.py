"""kill -9 at random moments: every file that is left parses, the resumed run equals the uninterrupted one, and
nothing that was finished is made twice.

A few kills by default (those of align and finetune are in their own tests: `alignment/test_running.py` and
`test_finetuning.py`); 100 in all, of all six, under `slow`, which prints when they struck.
"""

import csv
import json
import random
import shutil
from abc import ABC, abstractmethod

import numpy as np
import pytest
import tiny_mllm
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_diffusion import CALL, tiny_pipeline

from cogguided.guidance.finetuning.checkpoints import load_checkpoint
from cogguided.pipelines import read_candidates
from cogguided.pipelines.records.record import read_single
from cogguided.pipelines.study.study import read_rows
from cogguided.scorers import DIMENSIONS
from cogguided.scorers.benchmark.folder import read_answers

PROMPTS = [f"a {what}" for what in ("cat", "dog", "face", "tree", "heart", "lemon", "ghost")]
TORN = (".jsonl", ".csv", ".rows", ".cogguided")
"""Endings of files that grow: what follows their last whole line is none, and is cut off by the run that goes on."""


def text_of(file):
    return file.read_text("utf-8", "surrogateescape")


def call_flags(family):
    return [f"{name}={value}" for name, value in CALL[family].items()]


class Command(ABC):
    """One command of cogguided at tiny size."""

    resume: tuple[str, ...] = ()

    def __init__(self, folder):
        self.folder = folder
        self.prompts = folder / "prompts.txt"
        self.prompts.write_text("\n".join(PROMPTS))

    @abstractmethod
    def argv(self, out):
        """Words of the command line."""

    @abstractmethod
    def done(self, out):
        """What is finished: by name, something that changes when it is made again."""

    @abstractmethod
    def result(self, out):
        """What must come out the same."""


def identity(file):
    facts = file.stat()
    return facts.st_ino, facts.st_mtime_ns


class Generate(Command):
    resume = ("--resume",)

    def __init__(self, folder):
        super().__init__(folder)
        tiny_pipeline("sd15").save_pretrained(folder / "sd15")

    def argv(self, out):
        where = ["--model", self.folder / "sd15", "--prompts", self.prompts, "--out", out / "many"]
        how = ["--target", "noted", "--n", 2, "--search", "best_of_n", "--group", 2, "--seed", 3, "--quiet"]
        return ["generate", *where, *how, "--steps", 1, "--size", 16]

    def done(self, out):
        if not (out / "many/run.jsonl").exists():
            return {}
        rows = list(read_candidates(out / "many"))
        return {row["file"]: (row, identity(out / "many" / row["file"])) for row in rows}

    def result(self, out):
        folder, found = out / "many", {}
        for row in read_candidates(folder):
            row.pop("seconds")
            with Image.open(folder / row["file"]) as image:
                found[row["file"]] = (row, image.tobytes())
        sheets = {f.name: f.read_bytes() for f in (folder / "contact_sheets").iterdir()}
        return {**found, **sheets, "index": text_of(folder / "index.html")}


class Score(Command):
    def __init__(self, folder, count=300):
        super().__init__(folder)
        self.kinds = iter((".csv", ".jsonl", ".parquet") * 100)
        for i in range(count):
            (folder / f"images/{i % 7}").mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), (i % 256,) * 3).save(folder / f"images/{i % 7}/{i:04}.png")
        (folder / "images/3/broken.png").write_bytes(b"no picture")

    def argv(self, out):
        kinds = list(out.glob("kind.*"))
        if not kinds:
            out.mkdir(exist_ok=True)
            kinds = [out / f"kind{next(self.kinds)}"]
            kinds[0].touch()
        return ["score", self.folder / "images", "--scorer", "noted", "--out", out / f"scores{kinds[0].suffix}", "-q"]

    def done(self, out):
        """The files in the table, each with how often it was scored: not more often when all is done."""
        counts = {}
        if (out / "scored.txt").exists():
            lines = text_of(out / "scored.txt").splitlines()
            counts = {line: lines.count(line) for line in set(lines)}
        logs = list(out.glob(".scores*.cogguided"))
        if not logs or not (lines := [line for line in text_of(logs[0]).split("\n")[:-1] if line]):
            return {}
        rows = json.loads(lines[-1]).get("rows", 0)
        if not rows:  # the log is begun before the table
            return {}
        table = next(file for file in (*out.glob(".scores*.rows"), *out.glob("scores.*")) if file.exists())
        return {name: counts[name] for name in list(names_in(table))[:rows]}

    def result(self, out):
        (table,) = out.glob("scores.*")
        if table.suffix == ".parquet":
            import pyarrow.parquet

            rows = pyarrow.parquet.read_table(table).to_pylist()
        elif table.suffix == ".csv":
            rows = list(csv.DictReader(text_of(table).splitlines()))
        else:
            rows = list(map(json.loads, text_of(table).splitlines()))
        return {r["file"]: float(r["noted"]) if r["noted"] not in ("", None) else None for r in rows}


def names_in(table):
    lines = text_of(table).split("\n")[:-1]
    if table.suffix == ".csv":
        return [row["file"] for row in csv.DictReader(lines)]
    return [json.loads(line)["file"] for line in lines]


class Bench(Command):
    def __init__(self, folder):
        super().__init__(folder)
        lines = ["image,dimension,score"]
        for i in range(60):
            Image.new("RGB", (4, 4), (4 * i, 40, 90)).save(folder / f"{i}.png")
            lines.append(f"{i}.png,memorability,{i / 60}")
        (folder / "ratings.csv").write_text("\n".join(lines))

    def argv(self, out):
        what = ["--scorer", "noted", "--data", self.folder / "ratings.csv", "--dimension", "memorability"]
        return ["bench", *what, "--batch-size", 2, "--resamples", 20, "--quiet", "--out", out / "run"]

    def done(self, out):
        return {key: scored.to_json() for key, scored in read_answers(out / "run").items()}

    def result(self, out):
        facts = json.loads(text_of(out / "run/results.json"))
        return {"answers": self.done(out), "rows": facts["rows"]}


class Align(Command):
    resume = ("--resume",)

    def __init__(self, folder):
        super().__init__(folder)
        tiny_mllm.build("gemma3", folder / "gemma3")
        facts = {"name": "tiny", "questions": {name: f"{name}?" for name in DIMENSIONS}}
        (folder / "gemma3/cogguided_scorer.json").write_text(json.dumps(facts))
        lines = ["image,dimension,score"]
        for i in range(8):
            pixels = np.random.default_rng(i).integers(0, 255, (28, 28, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
            lines.append(f"{i}.png,memorability,{0.1 * i + 0.123:.3f}")
        (folder / "ratings.csv").write_text("\n".join(lines))

    def argv(self, out):
        sizes = ("rank=2", "pixels=null", "batch_size=2", "micro_batch=2", "save_every=1", "keep=9")
        where = ["--model", self.folder / "gemma3", "--data", self.folder / "ratings.csv", "--output", out / "run"]
        return ["align", *where, *(f"--set={s}" for s in sizes), "--loss", "answers", "--max-steps", 5]

    def done(self, out):
        whole = [f.parent for f in (out / "run").glob("checkpoint-*/trainer_state.json")]
        return {folder.name: identity(folder / "trainer_state.json") for folder in whole}

    def result(self, out):
        return load_file(out / "run/adapter_model.safetensors")


class Finetune(Command):
    resume = ("--resume",)

    def __init__(self, folder):
        super().__init__(folder)
        tiny_pipeline("flux").save_pretrained(folder / "flux")
        self.prompts.write_text("\n".join(PROMPTS[:4]))

    def argv(self, out):
        sizes = ["rank=2", "prompts_per_round=2", "images_per_prompt=2", "timesteps=1", "images_per_evaluation=1"]
        where = ["--model", self.folder / "flux", "--prompts", self.prompts, "--output", out / "run"]
        how = [*(f"--set={s}" for s in (*sizes, "keep=9")), *(f"--call={s}" for s in call_flags("flux"))]
        return ["finetune", *where, "--target", "fake", "--rounds", 4, "--faithfulness", "none", *how]

    def done(self, out):
        if not any((out / "run/checkpoints").glob("round-*")):
            return {}
        return {row["round"]: row for row in load_checkpoint(out / "run")[0].history}

    def result(self, out):
        return load_file(out / "run/pytorch_lora_weights.safetensors")


class Study(Command):
    def __init__(self, folder):
        super().__init__(folder)
        pipe = tiny_pipeline("qwen_image")
        pipe.save_pretrained(folder / "pipe")
        with torch.no_grad():
            for parameter in pipe.text_encoder.parameters():
                parameter.mul_(1.1)
        pipe.text_encoder.save_pretrained(folder / "aligned")
        self.prompts.write_text("\n".join(PROMPTS[:4]))

    def argv(self, out):
        where = ["--model", self.folder / "pipe", "--aligned", self.folder / "aligned", "--prompts", self.prompts]
        how = ["--target", "noted", "--n", 2, "--faithfulness", "none", "--quiet"]
        calls = [word for flag in call_flags("qwen_image") for word in ("--call", flag)]
        return ["study", *where, *how, *calls, "--out", out / "run"]

    def done(self, out):
        rows = read_rows(out / "run") if (out / "run/rows.jsonl").exists() else []
        return {f"{r['prompt']} {r['seed']} {r['encoder']}": json.dumps(r) for r in rows}

    def result(self, out):
        images = {}
        for file in (out / "run/images").iterdir():
            with Image.open(file) as image:
                images[file.name] = image.tobytes()
        return {"rows": self.done(out), **images}


COMMANDS = {c.__name__.lower(): c for c in (Generate, Score, Bench, Align, Finetune, Study)}


# ---------------------------------------------------------------------- running and killing


def run(forks, argv, out, after=None):
    """Run a command to its end, or kill it after some seconds."""
    out.mkdir(exist_ok=True)
    return forks(argv, out / "said.log", after=after, env={"SCORED": str(out / "scored.txt")})


def check_files(out):
    """Every file that is left parses; those that grow, but for a last line without its end."""
    for file in out.rglob("*"):
        if not file.is_file() or file.parent.name.startswith(".") or not file.stat().st_size:
            continue
        if file.name.startswith(".") and file.suffix not in TORN:
            continue  # the half of a file, under another name
        if file.suffix == ".png":
            with Image.open(file) as image:
                image.load()
            if "many" in file.parts and file.parent.name.isdecimal():
                assert read_single(file).candidates
        elif file.suffix == ".json":
            json.loads(text_of(file))
        elif file.suffix in (".jsonl", ".rows", ".cogguided"):
            for line in text_of(file).split("\n")[:-1]:
                json.loads(line)
        elif file.suffix == ".csv":
            list(csv.DictReader(text_of(file).split("\n")[:-1]))
        elif file.suffix == ".safetensors":
            load_file(file)
        elif file.suffix == ".parquet":
            import pyarrow.parquet

            pyarrow.parquet.read_table(file)
        elif file.suffix == ".html":
            assert text_of(file).rstrip().endswith("</html>")


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(second[name], value, atol=1e-6, rtol=0)
        elif isinstance(value, float):
            assert value == pytest.approx(second[name], abs=1e-6), name
        else:
            assert value == second[name], name


def kill_and_resume(forks, command, kills, random_, tmp_path, whole=None):
    """Kill a command some times, one after the other, and let it go on to its end; returns when it was struck."""
    if whole is None:
        ended = run(forks, command.argv(tmp_path / "whole"), tmp_path / "whole")
        assert ended.code == 0, ended.said
        whole = command.result(tmp_path / "whole"), ended.seconds
    out = tmp_path / "killed"
    expected, seconds = whole
    struck, begun = [], False
    for _ in range(kills):
        after = random_.uniform(0, 1) * seconds
        ended = go_on(forks, command, out, begun, after)
        assert ended.code in (-9, 0), ended.said
        check_files(out)
        if ended.code == -9:
            struck.append(round(after / seconds, 2))
        begun = True
    before = command.done(out)
    ended = go_on(forks, command, out, begun)
    assert ended.code == 0, ended.said
    check_files(out)
    after = command.done(out)
    assert {name: after.get(name) for name in before} == before, "made twice"
    assert_same(expected, command.result(out))
    halves = [f for f in out.rglob(".*") if f.is_file() and f.suffix not in TORN]
    assert not halves, halves
    return struck, len(before), whole


def go_on(forks, command, out, begun, after=None):
    """Run what goes on with a run; align and finetune begin anew where it was killed before it had begun."""
    ended = run(forks, [*command.argv(out), *(command.resume if begun else ())], out, after)
    if ended.code == 1 and "nothing to resume" in ended.said:
        assert not command.done(out)
        ended = run(forks, [*command.argv(out), "--overwrite"], out, after)
    return ended


@pytest.mark.parametrize(("name", "kills"), [("generate", 2), ("score", 2), ("bench", 1), ("study", 1)])
def test_a_killed_run_goes_on(forks, tmp_path, name, kills):
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    (tmp_path / "given").mkdir()
    kill_and_resume(forks, COMMANDS[name](tmp_path / "given"), kills, random.Random(seed), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kills"),
    [("generate", 25), ("score", 25), ("bench", 15), ("align", 10), ("finetune", 10), ("study", 15)],
)
def test_a_hundred_kills(forks, tmp_path, name, kills):
    """Up to three kills in a row, and again with a new folder, until so many have struck a run at work."""
    (tmp_path / "given").mkdir()
    command = COMMANDS[name](tmp_path / "given")
    whole, struck, kept = None, [], []
    while len(struck) < kills:
        random_ = random.Random(f"{name} {len(kept)}")
        found, done, whole = kill_and_resume(forks, command, 3, random_, tmp_path, whole)
        struck += found
        kept.append(done)
        shutil.rmtree(tmp_path / "killed")
    print(f"{name}: {len(struck)} kills in {len(kept)} runs, at {sorted(struck)} of a run; finished by then: {kept}")
