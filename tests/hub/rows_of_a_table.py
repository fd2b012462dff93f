"""A saved model of a picture and of rows of a table."""

import torch
from tiny import vit_config

from hf_relearn import MultimodalForClassification, MultimodalProcessor, TableInput

COLUMNS = ["age", "city", "member"]


def save_model_of_rows(folder, columns=COLUMNS):
    rows = {
        "age": [20, 30, None, 50, 44, 61],
        "city": ["Rome", "Oslo", "Rome", None, "Oslo", "Bern"],
        "member": [True, False, True, True, False, None],
    }
    torch.manual_seed(0)
    table = TableInput.fit(rows, COLUMNS)
    backbones = {"patient": table.backbone_config(hidden_size=8, intermediate_size=16), "face": vit_config()}
    model = MultimodalForClassification.from_backbones(backbones, id2label={0: "ill", 1: "well"})
    processor = MultimodalProcessor.from_model(model.config, backbones, {"patient": table.settings})
    processor.columns = {"patient": list(columns), "face": "photo"}
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor
