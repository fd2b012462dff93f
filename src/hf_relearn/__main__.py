"""Run the command line as `python -m hf_relearn`, without its script `hf-relearn`."""

import sys

from hf_relearn.cli.main import main

sys.exit(main())
