"""The page as a person meets it: served by the command, in a real browser."""

import csv
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from transformers import pipeline

import hf_relearn  # noqa: F401  (the pipeline's task)

pytest.importorskip("gradio", reason="gradio is absent: pip install '.[demo]'")
LATEST = 240  # seconds until something must be there


@contextmanager
def served(command: list[str], folder: Path, **environment: str) -> Iterator[str]:
    """The address of a page that a process serves; without the network, as it is meant to work."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": str(folder / "uploads"), **environment}
    with open(folder / "log.txt", "w+") as log:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=folder, env={**os.environ, **settings}, stdout=log, stderr=log
        )
        try:
            address = f"http://127.0.0.1:{port}"
            said = f"The page is at {address}/ (Ctrl+C ends it)\n"
            for _ in range(10 * LATEST):  # the page answers shortly before it says so
                assert process.poll() is None, (folder / "log.txt").read_text()
                if said in (folder / "log.txt").read_text():
                    break
                time.sleep(0.1)
            assert said in (folder / "log.txt").read_text()
            yield address
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture(scope="module")
def address(model_folder, media, tmp_path_factory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    rows = folder / "moods.csv"
    with open(rows, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["speech", "face", "words", "gaze", "label"])
        writer.writerows([media["speech"], media["face"], f"a {name} cat", "", name] for name in ("calm", "glad"))
    (model_folder / "README.md").write_text("---\nlicense: mit\n---\n\n# moods\n\nTells **moods** of <b>four</b>.\n")
    command = ["-m", "hf_relearn", "demo", str(model_folder), "--cpu", "--no_browser"]
    with served([*command, "--dataset_name", str(rows), "--split", "train"], folder) as found:
        yield found


def appears(browser, condition) -> object:
    """What the condition gives, as soon as it gives anything."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, LATEST, ignored_exceptions=(Exception,)).until(condition)


def element(browser, selector: str):
    return appears(browser, lambda browser: browser.find_element("css selector", selector))


def classify_on_page(browser) -> None:
    element(browser, "#classify").click()


def scores_on_page(browser) -> dict[str, int]:
    """Label -> percentage, once they are there."""
    rows = appears(
        browser, lambda browser: browser.find_elements("css selector", "#scores [data-testid$='-confidence-set']")
    )
    return {
        row.find_element("css selector", ".text").text: int(row.find_element("css selector", ".confidence").text[:-1])
        for row in rows
    }


def shares_on_page(browser) -> list[str]:
    element(browser, "#contributions .shares")
    return [cell.text for cell in browser.find_elements("css selector", "#contributions .shares > :not(.bar)")]


def test_files_are_uploaded_and_the_scores_appear(browser, address, model_folder, media, tmp_path):
    browser.get(address)
    for name in ("speech", "face"):
        element(browser, f"#input-{name} input[type=file]").send_keys(media[name])
    appears(browser, lambda browser: browser.find_element("css selector", "#input-face img").get_attribute("src"))
    element(browser, "#input-words textarea").send_keys("a red cat")
    time.sleep(1)  # the uploads
    classify_on_page(browser)
    found, shares = scores_on_page(browser), shares_on_page(browser)
    browser.save_screenshot(str(tmp_path / "page.png"))

    sample = {"speech": media["speech"], "face": media["face"], "words": "a red cat"}
    classify = pipeline("multimodal-classification", model=str(model_folder), device=-1)
    expected = classify(sample, return_contributions=True)
    assert found == {entry["label"]: round(100 * entry["score"]) for entry in expected}
    best = expected[0]["contributions"]
    numbers = [cell for name in best for cell in (name, f"{best[name]:+.3f}" if name != "gaze" else "not given")]
    assert shares == numbers

    requested = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [entry["params"]["request"]["url"] for entry in requested if entry["method"] == "Network.requestWillBeSent"]
    elsewhere = [url for url in urls if not re.match(rf"{re.escape(address)}/|data:|blob:|chrome:|about:", url)]
    assert len(urls) > 5 and not elsewhere


def told_on_page(browser, words: str) -> str:
    """The message that holds the words, once it is there."""

    def message(browser) -> str | None:
        texts = [toast.text for toast in browser.find_elements("css selector", "[data-testid='toast-body']")]
        return next((text for text in texts if words in text), None)

    return str(appears(browser, message))


def test_what_is_wrong_is_told_on_the_page(browser, address, media):
    browser.get(address)
    classify_on_page(browser)
    told_on_page(browser, "none of the modalities face, gaze, speech, words")
    numbers = element(browser, "#input-gaze textarea")
    numbers.send_keys("1, <b>two</b>")
    classify_on_page(browser)
    told_on_page(browser, "modality 'gaze': '1, <b>two</b>' are no numbers")
    numbers.clear()
    numbers.send_keys("[0.5, -1]")
    classify_on_page(browser)
    assert len(scores_on_page(browser)) == 3
    element(browser, "#input-face input[type=file]").send_keys(media["broken"])
    time.sleep(1)  # the upload
    classify_on_page(browser)
    told_on_page(browser, "modality 'face': broken.png: not a readable image")


def test_page_of_a_phone_has_the_cards_words_examples_and_nothing_to_scroll_to_the_side(browser, address, tmp_path):
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    browser.get(address)
    appears(
        browser, lambda browser: "Tells moods of <b>four</b>." in browser.find_element("css selector", "body").text
    )
    examples = appears(browser, lambda browser: browser.find_elements("css selector", "#examples button"))
    assert [example.text for example in examples] == ["calm", "glad"]
    examples[1].click()
    words = element(browser, "#input-words textarea")
    appears(browser, lambda browser: words.get_attribute("value") == "a glad cat")
    appears(browser, lambda browser: browser.find_element("css selector", "#input-face img").get_attribute("src"))
    classify_on_page(browser)
    assert len(scores_on_page(browser)) == 3
    shares_on_page(browser)
    size = browser.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {**phone, "height": int(size["height"]) + 1})
    browser.save_screenshot(str(tmp_path / "phone.png"))
    assert size["width"] <= phone["width"]


def test_only_this_machine_reaches_the_page(address):
    """What listens on all addresses listens on this one of the loopback device, too."""
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", int(address.rpartition(":")[2])), timeout=5).close()


def test_a_space_serves_the_same_page(model_folder, tmp_path):
    from hf_relearn.demo.space import write_space

    space = tmp_path / "space"
    write_space(str(model_folder), space)
    with served(["app.py"], space) as found, urllib.request.urlopen(f"{found}/config", timeout=5) as answer:
        config = json.load(answer)
    labels = [component["props"].get("label") for component in config["components"]]
    assert {"speech", "face", "words", "gaze", "Scores"} <= set(labels)
    assert config["analytics_enabled"] is False
