"""The workshop: training, evaluation and shrinking of networks. Nothing outside this package imports it."""
