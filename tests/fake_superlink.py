"""A SuperLink that is not there: which keys it lets in."""

from gliofed.server.link.control import Node


class SuperLink:
    """The keys that a SuperLink lets in."""

    def __init__(self) -> None:
        self.keys: dict[int, bytes] = {}
        self.count = 0

    def nodes(self) -> list[Node]:
        return [Node(id=node, public_key=key, online=True, ended="") for node, key in self.keys.items()]

    def register(self, public_key: bytes, name: str) -> int:
        assert public_key not in self.keys.values()
        self.count += 1
        self.keys[self.count] = public_key
        return self.count

    def unregister(self, node: int) -> None:
        del self.keys[node]
