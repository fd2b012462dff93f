"""`python -m hf_relearn`: the command line where its script `hf-relearn` is not installed."""

import sys

from hf_relearn.cli.main import main

sys.exit(main())
