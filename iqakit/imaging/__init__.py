"""Images to network input: decoding, preparing, streaming. Loads torch only in ``tensors`` and ``codecs``."""
