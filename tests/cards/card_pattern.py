"""One pattern for a whole model card."""

import re

ROW = r"\|(?: [^|\n]+ \|)+\n"
RULE = r"\|(?: :?---:? \|)+\n"
TABLE = rf"{ROW}{RULE}(?:{ROW})+"
SENTENCE = r"(?:[^\n#|`]|`[^`\n]+`)+\n"
FIGURE = r"!\[Figure of [^\]]+\]\([\w./-]+\.png\)\n\n\*[^\n]+\*\n"

CARD = re.compile(
    r"---\n"
    r"(?:[a-z].*\n(?:[ -].*\n)*)+"  # keys with lists or mappings below
    r"---\n\n"
    r"# [^\n]+\n\n"
    rf"A multimodal classifier of {SENTENCE}\n"
    r"(?:(?:>[^\n]*\n)+\n)?"
    rf"\| modality \| input \| encoder \| started from \| feature \|\n{RULE}(?:{ROW})+\n"
    rf"Their features are fused by `\w+`{SENTENCE}\n"
    r"## How to use it\n\n"
    rf"{SENTENCE}\n"
    r"```python\n"
    r"from hf_relearn import MultimodalForClassification, MultimodalProcessor\n\n"
    r'model = MultimodalForClassification\.from_pretrained\("([\w./-]+)"\)\n'
    r'processor = MultimodalProcessor\.from_pretrained\("\1"\)\n'
    r"logits = model\(\*\*processor\(\{.+\}\)\)\.logits\n"
    r"print\(model\.config\.id2label\[logits\.argmax\(-1\)\.item\(\)\]\)\n"
    r"```\n\n"
    rf"{SENTENCE}\n"
    rf"From files, addresses and texts alike, {SENTENCE}\n"
    r"## Results\n\n"
    rf"(?:{SENTENCE}\n)?"  # the verdict
    rf"(?:(?=\| metric \|){TABLE}|No results were recorded\.\n)(?:\n\*{SENTENCE})*\n"
    r"## Each modality alone and left out\n\n"
    rf"(?:{TABLE}\nAccuracy on \*[^*]+\*\.{SENTENCE}|It was not measured {SENTENCE})\n"
    r"## What the diagnosis says\n\n"
    rf"(?:(?:- \*\*[^*]+\*\*: {SENTENCE})+\n(?:<details>\n<summary>\d+ rows</summary>\n\n)?{TABLE}(?:\n</details>\n)?"
    r"|No modality was diagnosed in this run\.\n)\n"
    rf"(?:(?:{FIGURE}\n)+|There is no figure yet: {SENTENCE}\n)"
    r"## How it was trained\n\n"
    rf"{SENTENCE}\n"
    rf"(?:Hyper-parameters that differ from their defaults:\n\n{TABLE}|All hyper-parameters have their defaults\.\n)\n"
    r"## Versions and hardware\n\n"
    r"\|  \|  \|\n\| :--- \| :--- \|\n"
    r"\| python \| 3\.[\d.]+ \|\n"
    rf"(?:{ROW})+\n"
    r"## Known limits\n\n"
    r"(?:- [A-Za-z][^\n]+\.\n)+\n"
    r"## Citation\n\n"
    rf"{SENTENCE}\n"
    r"```bibtex\n@inproceedings\{wei2024diagnosing,\n(?:  \w+=\{.+\},?\n)+\}\n```\n"
)
