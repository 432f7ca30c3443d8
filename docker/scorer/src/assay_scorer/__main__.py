"""`python -m assay_scorer`."""

import sys

from .cli import main

sys.exit(main())
