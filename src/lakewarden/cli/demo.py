"""lakewarden demo: the main job on real data, and bad deliveries being refused."""


def demo() -> None:
    """Watch it: real flights are published, bad deliveries are refused."""
