"""Pure functions, tensors in and tensors out; they need torch alone."""
