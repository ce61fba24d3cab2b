"""What every store raises."""


class StoreDown(Exception):
    """The store did not answer."""
