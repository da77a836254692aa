"""``python -m kinora.agent``."""

from kinora.agent.main import run

run()
