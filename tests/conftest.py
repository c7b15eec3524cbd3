"""What all tests run with."""

import os

# Compiling takes most of the time of the tests. XLA compiles small programs in half of the time if
# the machine code is not optimized.
_LESS = "--xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_LESS}".strip()
