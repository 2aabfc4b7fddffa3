"""Published and had back: judges, guided pipelines and LoRAs, with a mocked transport only at the network's edge."""

import json
import shutil
from dataclasses import replace

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.errors import HfHubHTTPError
from PIL import Image
from safetensors.torch import load_file
from tiny_diffusion import CALL, tiny_pipeline
from typer.testing import CliRunner

from cogguided import BestOfN, CogGuidedPipeline, FakeScorer, FinetuneConfig, finetune, load_scorer
from cogguided._cli.app import app
from cogguided._errors import InputError, ModelError, RecordError
from cogguided.integrations import CardFacts, push_to_hub, save_for_hub
from cogguided.scorers.alignment import recipe
from cogguided.scorers.alignment.folders import is_adapter
from cogguided.scorers.alignment.loading import load_for_training
from cogguided.scorers.benchmark import Rating, score_items, write_report
from cogguided.scorers.benchmark.folder import folder_digest
from cogguided.scorers.mllm.checkpoints import ScorerFacts
from cogguided.scorers.registry import EMBEDDED

ADAPTER = EMBEDDED / "aligned"
TOKEN = {"token": "hf_tiny"}
# so huggingface_hub 2.4 gives a large file to its own client
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub behind `huggingface_hub`'s own client, and an empty cache."""
    from tiny_hub import TinyHub

    made = TinyHub()
    cache = tmp_path / "hub-cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # its own network, in Rust
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    huggingface_hub.set_client_factory(made.client)
    yield made
    huggingface_hub.set_client_factory(huggingface_hub.utils._http.default_client_factory)


@pytest.fixture(scope="module")
def pictures():
    pixels = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
    return [Image.fromarray(image) for image in pixels]


@pytest.fixture(scope="module")
def lora_run(tmp_path_factory):
    """A short run of fine-tuning."""
    config = FinetuneConfig(
        rounds=1, prompts_per_round=2, images_per_prompt=2, timesteps=1, updates=1, rank=2, learning_rate=0.02,
        images_per_evaluation=1, evaluate_every=1, patience=0, save="last",
    )  # fmt: skip
    texts = {"prompts": ["a cat", "a dog"], "evaluation": ["a fish", "a lamp"]}
    folder = tmp_path_factory.mktemp("runs") / "joyful"
    options = {"faithfulness": None, "progress": False, **CALL["flux"]}
    return finetune(tiny_pipeline("flux"), FakeScorer("light"), output=folder, config=config, **texts, **options)


def benchmark_run(folder):
    """A run of the benchmark, of a scorer that agrees with people."""
    ratings = []
    for i in range(6):
        picture = folder.parent / f"{i}.png"
        Image.new("RGB", (4, 4), (40 * i,) * 3).save(picture)
        ratings.append(Rating(picture, "memorability", (i + (i == 2)) / 6, str(i)))
    facts = {"scorer": str(ADAPTER), "model_files": {"scorer": folder_digest(ADAPTER)}}
    score_items(FakeScorer("memorability"), ratings, folder, settings=facts, progress=False)
    write_report(folder, about={"data": "foolen/CogIP-Bench"}, num_resamples=50)
    return folder


def card_of(hub, name):
    return ModelCard(hub.repos[name]["README.md"].decode())


def test_an_adapter_is_published_and_had_back(hub, tmp_path, pictures):
    runs = benchmark_run(tmp_path / "bench")
    said = CardFacts(datasets=["foolen/CogIP-Bench"], tags=["emoji"], pictures={"noise": pictures[0]})
    info = push_to_hub(ADAPTER, "me/judge", said, benchmark=runs, private=True, **TOKEN)
    assert info.commit_url.startswith("https://huggingface.co/me/judge/commit/")
    assert hub.private == {"me/judge"}
    assert hub.asked.index("POST /api/validate-yaml") < hub.asked.index("POST /api/models/me/judge/commit/main")
    files = hub.repos["me/judge"]
    assert {"adapter_model.safetensors", "cogguided_scorer.json", "pictures/00.png"} <= files.keys()
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "embedded"
    back, before = load_scorer("me/judge"), load_scorer(ADAPTER)
    assert replace(back.facts, model="") == replace(before.facts, model="") == ScorerFacts.read(ADAPTER)
    torch.testing.assert_close(back(pictures[:1]).values, before(pictures[:1]).values, rtol=0, atol=0)
    assert is_adapter("me/judge")
    more = load_for_training("me/judge", recipe(), ["emotional_valence"], "more")
    trained = [name for name, weight in more.model.named_parameters() if weight.requires_grad]
    assert len(trained) == len(load_file(ADAPTER / "adapter_model.safetensors"))


@pytest.mark.slow  # 5 seconds
def test_training_goes_on_from_an_adapter_by_its_name_on_the_hub(hub, tmp_path):
    push_to_hub(ADAPTER, "me/judge", **TOKEN)
    output = tmp_path / "more"
    Image.new("RGB", (32, 32)).save(output.with_suffix(".png"))
    ratings = output.with_suffix(".csv")
    ratings.write_text(f"image,dimension,score\n{output.with_suffix('.png')},emotional_valence,1\n")
    say = ["align", "--model", "me/judge", "--data", str(ratings), "--output", str(output), "--max-steps", "1"]
    done = CliRunner().invoke(app, say, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    now, before = (load_file(folder / "adapter_model.safetensors") for folder in (output, ADAPTER))
    assert now.keys() == before.keys()
    assert 0 < max((now[name].float() - before[name].float()).abs().max() for name in now) < 0.05
    record = json.loads((output / "alignment.json").read_text())
    assert (record["model"], record["from_adapter"]) == ("me/judge", True)


def test_a_pull_request_is_opened_where_one_may_not_write(hub, lora_run):
    said = CardFacts(license="mit", base_model="owner/flux")
    hub.repos["them/joyful"] = {"README.md": b"# theirs"}
    info = push_to_hub(lora_run.folder, "them/joyful", said, create_pr=True, commit_message="Better", **TOKEN)
    assert info.pr_url == "https://huggingface.co/them/joyful/discussions/1"
    assert hub.repos["them/joyful"] == {"README.md": b"# theirs"}
    proposed = hub.pulls["them/joyful"]
    kept = (lora_run.folder / "pytorch_lora_weights.safetensors").read_bytes()
    assert proposed["pytorch_lora_weights.safetensors"] == kept
    assert ModelCard(proposed["README.md"].decode()).data.base_model == "owner/flux"
    with pytest.raises(HfHubHTTPError, match="create_pr"):
        push_to_hub(lora_run.folder, "them/joyful", said, **TOKEN)


def test_a_judge_s_card_has_metadata_that_the_hub_understands(hub, tmp_path):
    runs = benchmark_run(tmp_path / "bench")
    card = save_for_hub(ADAPTER, tmp_path / "staged", "me/judge", benchmark=runs)
    assert hub.asked == [], "nothing is uploaded yet"
    data = ModelCard.load(tmp_path / "staged" / "README.md").data
    assert data.to_dict() == card.data.to_dict()
    assert (data.license, data.pipeline_tag, data.library_name) == ("cc-by-sa-4.0", "image-text-to-text", "peft")
    assert {"cogguided", "image-scoring", "memorability"} <= set(data.tags)
    results = {result.metric_type: result for result in data.eval_results}
    assert [*data.metrics, "unread"] == list(results)
    assert results["unread"].metric_value == 0.0
    told = json.loads((runs / "results.json").read_text())
    (row,) = [r for r in told["rows"] if r["who"] == "score" and r["subset"] == "all"]
    found, expected = results["spearmanr"], row["metrics"]["spearman"]
    assert found.metric_value == pytest.approx(expected["value"], abs=1e-6)
    assert found.metric_args["confidence_interval"] == pytest.approx([expected["low"], expected["high"]], abs=1e-6)
    assert found.metric_args["items"] == row["items"]
    assert found.dataset_type == "foolen/CogIP-Bench"
    assert f"{expected['value']:.3f} [{expected['low']:.3f}, {expected['high']:.3f}]" in card.text


def test_a_whole_model_is_published_and_had_back(hub, tmp_path, pictures):
    import tiny_mllm

    folder = tiny_mllm.build("smolvlm", tmp_path / "model")
    (folder / "cogguided_scorer.json").write_text(json.dumps({"name": "mine", "questions": {"memorability": "m?"}}))
    judge = load_scorer(folder, dimension="memorability", min_mass=0.0)
    push_to_hub(judge, "me/whole", CardFacts(license="apache-2.0", base_model="owner/base"), **TOKEN)
    data = card_of(hub, "me/whole").data
    assert (data.license, data.base_model, data.library_name) == ("apache-2.0", "owner/base", "transformers")
    assert data.eval_results is None
    judge.push_to_hub("whole-too", CardFacts(license="apache-2.0", base_model="owner/base"), private=True, **TOKEN)
    assert hub.private == {"me/whole-too"}
    for file in ("config.json", "model.safetensors", "cogguided_scorer.json"):
        assert hub.repos["me/whole-too"][file] == hub.repos["me/whole"][file]
    back = load_scorer("me/whole", dimension="memorability", min_mass=0.0)
    assert judge(pictures[:1]).valid.all()
    assert back.facts.dimensions["memorability"].question == "m?"
    torch.testing.assert_close(back(pictures[:1]).values, judge(pictures[:1]).values, rtol=0, atol=0)


def test_a_guided_pipeline_is_published_and_had_back(hub):
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline("sd15"), scorer="fake", guidance=BestOfN(2))
    out = pipe("a face", seed=0, **CALL["sd15"])
    said = CardFacts(license="apache-2.0", pictures={"a face": out.images[0]})
    pipe.push_to_hub("me/faces", card=said, **TOKEN)
    data = card_of(hub, "me/faces").data
    assert (data.pipeline_tag, data.library_name, data.license) == ("text-to-image", "diffusers", "apache-2.0")
    assert data.widget == [{"text": "a face", "output": {"url": "pictures/00.png"}}]
    assert not data.get("base_model")
    back = CogGuidedPipeline.from_pretrained("me/faces")
    back.set_progress_bar_config(disable=True)
    assert (back.scorer, back.guidance) == ("fake", [BestOfN(2)])
    again = back("a face", seed=0, **CALL["sd15"])
    assert np.array_equal(np.asarray(again.images[0]), np.asarray(out.images[0]))


def test_a_saved_pipeline_is_published_from_its_folder_or_while_saving(hub, tmp_path):
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline("sd15"), target="memorability")
    said = CardFacts(license="apache-2.0", base_model="owner/base")
    pipe.save_pretrained(tmp_path / "saved", push_to_hub=True, card=said, **TOKEN)
    (tmp_path / "saved" / ".cache").mkdir()
    (tmp_path / "saved" / ".cache" / "x.lock").touch()
    push_to_hub(tmp_path / "saved", "me/two", said, **TOKEN)
    pipe.scorer = str(ADAPTER)
    with pytest.raises(InputError, match="aligned is a folder of this machine"):
        pipe.push_to_hub("me/three", **TOKEN)
    assert "me/three" not in hub.repos
    one, two = hub.repos["me/saved"], hub.repos["me/two"]
    assert one.keys() == two.keys()
    assert card_of(hub, "me/two").data.base_model == "owner/base"
    assert "cogguided.json" in two


def test_a_lora_is_published_and_plain_diffusers_loads_it(hub, lora_run):
    push_to_hub(lora_run.folder, "me/joyful", CardFacts(license="mit", base_model="owner/flux"), **TOKEN)
    assert sorted(hub.repos["me/joyful"]) == [
        ".gitattributes", "README.md", "evaluations/after.png", "evaluations/before.png",
        "pytorch_lora_weights.safetensors",
    ]  # fmt: skip
    card = card_of(hub, "me/joyful")
    assert card.data.base_model == "owner/flux"
    assert card.data.get("base_model_relation") == "adapter"
    (result,) = card.data.eval_results
    gain = lora_run.saved.values["target"] - lora_run.before.values["target"]
    assert result.metric_value == pytest.approx(gain.mean(), abs=1e-6)
    low, high = result.metric_args["confidence_interval"]
    assert low < gain.mean() < high
    assert "![after](evaluations/after.png)" in card.text
    plain = tiny_pipeline("flux")
    plain.load_lora_weights("me/joyful", adapter_name="joyful")
    assert plain.get_list_adapters() == {"transformer": ["joyful"]}
    kept = load_file(lora_run.folder / "pytorch_lora_weights.safetensors")
    loaded = dict(plain.transformer.named_parameters())
    name = next(n for n in kept if n.endswith("lora_A.weight"))
    own = name.removeprefix("transformer.").replace("lora_A.weight", "lora_A.joyful.weight")
    torch.testing.assert_close(loaded[own], kept[name])


def test_where_diffusers_loads_no_lora_it_is_published_for_peft(hub, tmp_path, lora_run):
    shutil.copytree(lora_run.folder, tmp_path / "run")
    (tmp_path / "run" / "pytorch_lora_weights.safetensors").rename(tmp_path / "run" / "adapter_model.safetensors")
    (tmp_path / "run" / "adapter_config.json").write_text("{}")
    card = save_for_hub(tmp_path / "run", tmp_path / "out", "me/pixart", CardFacts(base_model="owner/pixart"))
    assert card.data.library_name == "peft"
    assert 'PeftModel.from_pretrained(pipe.transformer, "me/pixart")' in card.text
    written = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json"} <= written


def test_the_command_line_publishes(hub, tmp_path, lora_run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    say = ["finetune", "push", str(lora_run.folder), "me/joyful", "--license", "mit", "--base-model", "owner/flux"]
    done = CliRunner().invoke(app, [*say, "--to", str(tmp_path / "seen")], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "nothing was uploaded" in done.output
    assert hub.asked == []
    done = CliRunner().invoke(app, [*say, "--private", "--tag", "mine"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "published: https://huggingface.co/me/joyful/commit/" in done.output
    assert hub.private == {"me/joyful"}
    assert "mine" in card_of(hub, "me/joyful").data.tags
    done = CliRunner().invoke(app, ["align", "push", str(tmp_path), "me/judge"], env={"COLUMNS": "200"})
    assert done.exit_code == 1
    assert "neither an adapter" in done.output


def test_text_that_a_person_wrote_is_kept(hub, tmp_path, lora_run):
    said = CardFacts(license="mit", base_model="owner/flux")
    push_to_hub(lora_run.folder, "me/joyful", said, **TOKEN)
    first = hub.repos["me/joyful"]["README.md"]
    push_to_hub(lora_run.folder, "me/joyful", said, **TOKEN)
    assert hub.repos["me/joyful"]["README.md"] == first
    own = "---\nlicense: mit\nlanguage: en\ntags: [mine]\n---\n\n# My own words\n"
    hub.repos["me/joyful"]["README.md"] = own.encode()
    push_to_hub(lora_run.folder, "me/joyful", said, **TOKEN)
    card = card_of(hub, "me/joyful")
    assert card.text.strip() == "# My own words"
    assert (card.data.language, card.data.base_model) == ("en", "owner/flux")
    assert {"mine", "cogguided", "lora"} <= set(card.data.tags)
    assert len(card.data.eval_results) == 1


def test_what_cannot_be_published_says_why_before_anything_is_uploaded(hub, tmp_path, lora_run):
    with pytest.raises(InputError, match=r"its generator is 'None'.*base_model"):
        push_to_hub(lora_run.folder, "me/joyful", **TOKEN)
    with pytest.raises(ModelError, match="no such folder"):
        push_to_hub(tmp_path / "nothing", "me/x", **TOKEN)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="neither an adapter"):
        push_to_hub(tmp_path / "empty", "me/x", **TOKEN)
    with pytest.raises(InputError, match="OWNER/NAME"):
        push_to_hub(ADAPTER, "me/x/y", **TOKEN)
    with pytest.raises(RecordError, match="no finished run"):
        push_to_hub(ADAPTER, "me/x", benchmark=tmp_path, **TOKEN)
    with pytest.raises(InputError, match=r"such as 'apache-2\.0'"):
        CardFacts(license="Apache 2.0")
    with pytest.raises(InputError, match="not empty"):
        save_for_hub(ADAPTER, lora_run.folder, "me/x")
    assert hub.asked == []
    with pytest.raises(HfHubHTTPError, match="401"):
        push_to_hub(ADAPTER, "me/x", token="hf_wrong")
    hub.refuses = "license must be one of ..."
    with pytest.raises(InputError, match=r"me/x: the Hub does not accept the model card: .*license must be one of"):
        push_to_hub(ADAPTER, "me/x", **TOKEN)
    assert hub.repos == {}


def test_an_adapter_on_a_folder_of_this_machine_needs_a_name_for_its_base(hub, tmp_path):
    folder = tmp_path / "aligned"
    folder.mkdir()
    for file in ADAPTER.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    record = {"model": str(tmp_path), "metrics": {"mae_memorability": 0.25}}
    (folder / "alignment.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="which nobody else has"):
        save_for_hub(folder, tmp_path / "staged", "me/x")
    runs, said = benchmark_run(tmp_path / "bench"), CardFacts(base_model="owner/base")
    with pytest.raises(InputError, match="a run with another judge"):
        save_for_hub(folder, tmp_path / "other", "me/x", said, benchmark=runs)
    card = save_for_hub(folder, tmp_path / "out", "me/x", CardFacts(base_model="owner/base"))
    named = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert named["base_model_name_or_path"] == card.data.base_model == "owner/base"
    assert not (tmp_path / "out" / "alignment.json").exists(), "it names folders of this machine"
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value, result.metric_args) == ("mae", 0.25, None)
