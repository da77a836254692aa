"""``python -m kinora.stager``."""

from kinora.stager.main import run

run()
