"""What the Hub accepts as metadata, as far as that can be told without asking it.

A card that the Hub refuses makes the whole push fail, at the end of a training run: so it is checked before.
"""

import re

from huggingface_hub.utils import HFValidationError, validate_repo_id

# The identifiers of https://huggingface.co/docs/hub/repositories-licenses.
LICENSES = frozenset(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0
    bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0
    cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0
    cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0
    cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl
    gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr
    mpl-2.0 odc-by odbl openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr
    deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4
    grok2-community gemma unknown other
    """.split()
)


def check_license(identifier: str) -> None:
    """Refuse a licence that the Hub does not know.

    Raises:
        ValueError: the message says which the common ones are.
    """
    if identifier not in LICENSES:
        near = f"; did you mean {identifier.lower()}?" if identifier.lower() in LICENSES else ""
        raise ValueError(
            f"the licence {identifier!r} is none of the Hub's identifiers{near or ','} such as apache-2.0, mit, "
            "cc-by-4.0 or cc-by-nc-4.0 (https://huggingface.co/docs/hub/repositories-licenses); use 'other' for "
            "one of your own"
        )


def check_language(code: str) -> None:
    """Refuse what cannot be an ISO 639 code.

    Raises:
        ValueError: for anything but two or three small letters, `code` or `multilingual`.
    """
    if not re.fullmatch(r"[a-z]{2,3}|code|multilingual", code):
        raise ValueError(
            f"the language {code!r} is no ISO 639 code: give two or three small letters (en, de, yue), 'code' or "
            "'multilingual'"
        )


def is_hub_id(name: str | None) -> bool:
    """Whether a name can be that of a repository on the Hub, which no absolute or long path can."""
    try:
        validate_repo_id(name or "")
    except HFValidationError:
        return False
    return True
