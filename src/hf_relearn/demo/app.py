"""A page to try a fusion model in the browser. This file alone is also the app of a Space.

MODEL=name/model python app.py
"""

import os

from hf_relearn.demo.serving import serve

MODEL = "model"  # of a Space: a name on the Hub, or a folder beside this file

if __name__ == "__main__":
    serve(os.environ.get("MODEL", MODEL))
