"""The decoders as Triton kernels; imports torch and triton only. `liif_fast.backends.triton` is the way in."""
