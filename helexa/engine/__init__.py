"""The engine: what runs on a device thread.  Torch lives here; Trio does not."""
