"""The command line: thin verbs over the package, each of which leaves files that the next one reads.

Whatever is wrong with the input comes back as one line on stderr and exit code 2, never as a traceback.
"""

from interp_unlearn.cli.app import app, main

__all__ = ["app", "main"]
