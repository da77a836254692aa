"""``python -m kinora.cli``: the kinora command without its script."""

from kinora.cli.main import main

main()
