"""What docs/operating.rst and its pages say, done on a host of the tests' own."""
