"""What the stand-in for CUDA counts, in the order of source/fake.h."""

WAITS, KERNELS, CAPTURED, STRAY, PAGEABLE, FORBIDDEN, REPLAYS, ALLOCATIONS, PRODUCTS = range(9)
