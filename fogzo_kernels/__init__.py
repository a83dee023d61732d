"""Low-bit quantization and zeroth-order probe operations on plain arrays, without autograd."""
