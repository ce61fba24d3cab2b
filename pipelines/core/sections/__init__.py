"""Every section of params.yaml with the type and meaning of its keys; `core/config.py` joins them."""
