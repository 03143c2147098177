"""Code: LLVM IR, object code, the parallel runtime, kernels as callables and default schedules."""
