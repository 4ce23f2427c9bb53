"""`python -m clipq` is `clipq`."""

import sys

from clipq.cli import main

sys.exit(main())
