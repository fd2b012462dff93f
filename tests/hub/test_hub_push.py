"""Pushing: exactly the right files, through every fault, and no failure that costs a run."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from hub_client import pull, push, stage_tiny, train
from hub_server import TOKEN, USER, Fault

from hf_relearn.hub.upload import PushError, push_command, push_folder

CODE = {
    "configuration_backbones.py",
    "configuration_limits.py",
    "configuration_multimodal.py",
    "modeling_attention.py",
    "modeling_backbones.py",
    "modeling_description.py",
    "modeling_encoders.py",
    "modeling_features.py",
    "modeling_fusion.py",
    "modeling_fusion_tokens.py",
    "modeling_losses.py",
    "modeling_missing.py",
    "modeling_modules.py",
    "modeling_multimodal.py",
    "modeling_pooling.py",
    "modeling_pretrained.py",
    "modeling_probe.py",
    "modeling_seeds.py",
    "modeling_table.py",
    "modeling_towers.py",
    "modeling_weights.py",
    "pipeline_multimodal.py",
    "processing_augmentation.py",
    "processing_defaults.py",
    "processing_downloads.py",
    "processing_features.py",
    "processing_images.py",
    "processing_media.py",
    "processing_multimodal.py",
    "processing_pretrained.py",
    "processing_sounds.py",
    "processing_sources.py",
    "processing_table.py",
    "processing_text.py",
}
MODEL = {"config.json", "model.safetensors", "processor_config.json"}
RUN = {"README.md", "relearn_history.jsonl", "training_arguments.json"}


def figures_shown(files: dict[str, bytes]) -> set[str]:
    return set(re.findall(r"figures/[\w.-]+\.png", files["README.md"].decode()))


def assert_nothing_local(files: dict[str, bytes], *words: str) -> None:
    for path, data in files.items():
        for word in (*words, "zebediah", TOKEN, "secret_backbone/"):
            assert word.encode() not in data, f"{word} is in {path}"


@pytest.fixture(scope="module")
def staged(client, tmp_path_factory):
    folder = tmp_path_factory.mktemp("staged") / "model"
    client(stage_tiny, str(folder))
    return folder


def test_a_push_holds_exactly_these_files_and_nothing_local(client, hub, tmp_path):
    output = tmp_path / "balanced"
    result = client(train, str(output), save_strategy="epoch", hub_strategy="every_save", hub_token=TOKEN)
    repository = hub.repositories[f"{USER}/balanced"]

    assert result["failure"] is None
    assert set(repository.files) == MODEL | RUN | CODE | figures_shown(repository.files)
    assert_nothing_local(repository.files, str(tmp_path), tmp_path.name)
    assert b'"/m/0dgw9r"' in repository.files["config.json"]  # a label that only looks like a path
    assert client(pull, f"{USER}/balanced") == result["logits"]
    # Each of the pushes during training held the same, but for what was not there yet.
    summaries = [commit["summary"] for commit in repository.commits]
    assert summaries[0] == "Training in progress, epoch 1" and summaries[-1] == "Model save", summaries
    for commit in repository.commits:
        assert MODEL | CODE | {"README.md", "training_arguments.json"} <= set(commit["files"])
    assert list(output.glob("_to_push*")) == []
    assert list(output.rglob("training_args.bin")) == []


def test_weights_of_an_earlier_push_do_not_stay_beside_new_ones(client, hub, staged):
    hub.put(f"{USER}/resharded", {"model-00001-of-00002.safetensors": b"old", "notes.md": b"the user's own"})
    client(push, str(staged), f"{USER}/resharded")
    assert set(hub.repositories[f"{USER}/resharded"].files) == MODEL | CODE | {"notes.md"}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("POST /api/repos/create", 401, times=9, message="Invalid credentials"), "token is missing"),
        (Fault("POST .*/preupload/", 403, times=9, message="storage limit reached"), "storage limit reached"),
        (Fault("PUT /storage/", 413, times=9), "larger than the account may store"),
        (Fault("POST .*/commit/", 403, times=9), "no right to write"),
    ],
    ids=["401", "403 before the upload", "413", "403 at the commit"],
)
def test_a_refusal_says_why_and_what_to_run(client, hub, staged, fault, said):
    with hub.failing(fault):
        result = client(push, str(staged), f"{USER}/refused")
    assert said in result["error"] and str(fault.status) in result["error"]
    assert result["command"] in result["error"] and str(staged) in result["command"]
    assert result["seconds"] < 5, "a refusal was tried again"


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST .*/commit/", 429, headers={"Retry-After": "1"}),
        Fault("POST /api/repos/create", 500),
        Fault("PUT /storage/", 500),
        Fault("PUT /storage/", cut_after=100),
        Fault("POST .*/commit/", cut_after=10),
    ],
    ids=["429 at the commit", "500 at the start", "500 in the upload", "cut in the upload", "cut in the commit"],
)
def test_what_passes_is_tried_again(client, hub, staged, fault, request):
    repo_id = f"{USER}/again-{request.node.callspec.indices['fault']}"
    with hub.failing(fault):
        result = client(push, str(staged), repo_id)
    assert "oid" in result, result
    assert set(hub.repositories[repo_id].files) == MODEL | CODE


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("POST /api/repos/create", 503, times=3, headers={"Retry-After": "0"}), "the server failed (HTTP 503"),
        (Fault("POST /api/repos/create", times=3, cut_after=0), "no connection to the Hub"),
    ],
    ids=["503", "no connection"],
)
def test_what_does_not_pass_ends_in_one_message(client, hub, staged, fault, said):
    with hub.failing(fault):
        result = client(push, str(staged), f"{USER}/down")
    assert said in result["error"]
    assert len(result["logged"]) == 2  # the tries between


def test_a_card_that_the_hub_refuses_is_told_by_its_reason(client, hub, staged, tmp_path):
    folder = Path(shutil.copytree(staged, tmp_path / "copy"))
    (folder / "README.md").write_text("---\nlicense: mine\n---\n\n# A model\n")
    result = client(push, str(folder), f"{USER}/licence")
    assert '"license" must be one of [apache-2.0' in result["error"] and result["command"] in result["error"]


def test_an_offline_client_says_that_it_is_offline(staged):
    with pytest.raises(PushError, match="HF_HUB_OFFLINE") as caught:  # as the tests' own process is
        push_folder(staged, f"{USER}/offline")
    assert caught.value.command in str(caught.value)


def test_a_new_repository_is_private_where_asked(client, hub, staged):
    client(push, str(staged), "secluded", private=True)
    assert hub.repositories[f"{USER}/secluded"].private
    assert push_command(staged, "secluded", private=True, revision="v1").startswith(
        f"hf upload secluded {staged} . --private --revision v1"
    )


def test_a_run_whose_pushes_all_fail_ends_with_its_model_and_one_warning(client, hub, tmp_path, client_environment):
    output = tmp_path / "unlucky"
    with hub.failing(Fault("POST .*/preupload/", 403, times=999, message="no rights")):
        result = client(train, str(output), save_strategy="epoch", hub_strategy="every_save", hub_always_push=True)

    assert "no rights" in result["failure"]
    warnings = [text for text in result["logged"] if "Nothing is pushed for now" in text]
    assert len(warnings) == 1 and "Training goes on" in warnings[0]
    assert client(pull, str(output)) == result["logits"]
    # The command of the message pushes later what would have been pushed.
    subprocess.run(shlex.split(result["command"]), env=client_environment, check=True, capture_output=True)
    files = hub.repositories[f"{USER}/unlucky"].files
    assert set(files) == MODEL | RUN | CODE | figures_shown(files)
    assert client(pull, f"{USER}/unlucky") == result["logits"]


def test_a_callback_that_fails_before_a_push_breaks_none(client, hub, tmp_path):
    result = client(train, str(tmp_path / "noted"), card_error="no notes today")
    assert result["failure"] is None and any("no notes today" in text for text in result["logged"])
    files = hub.repositories[f"{USER}/noted"].files
    assert set(files) == MODEL | RUN | CODE | figures_shown(files)


def test_strategies_that_would_push_pickles_are_refused(client, tmp_path):
    with pytest.raises(ValueError, match="--hub_strategy all_checkpoints would push checkpoints, .* are pickles"):
        client(train, str(tmp_path / "run"), hub_strategy="all_checkpoints")


def test_a_name_that_no_repository_can_have_is_refused_before_training(client, tmp_path):
    with pytest.raises(ValueError, match="a/b/c"):
        client(train, str(tmp_path / "run"), hub_model_id="a/b/c")
