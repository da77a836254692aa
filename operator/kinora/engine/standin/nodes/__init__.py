"""What each node class does. One module a kind of node; each registers its functions when it is imported.

Functions take a Context and the node's inputs by name, and give an Output; they know no queue, socket or message.
"""

from importlib import import_module

MODULES = ("loaders", "images", "masks", "sampling", "wanvideo", "videos")


def load() -> None:
    """Fills the registry."""
    for name in MODULES:
        import_module(f"{__name__}.{name}")
