"""Images to tensors: decoding, preparing, streaming."""
