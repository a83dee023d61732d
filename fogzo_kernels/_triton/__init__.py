"""The numbers of the specification as Triton device functions, shared by the kernels."""
