"""`python -m interp_unlearn.cli`, where the script is not on the path."""

import sys

from interp_unlearn.cli.app import main

sys.exit(main())
