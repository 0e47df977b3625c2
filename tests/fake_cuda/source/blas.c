// cuBLAS: handles, and products that do nothing. A product is a launch on the stream of its handle.
#include "fake.h"

static __thread cudaStream_t stream_of_handle;

EXPORTED int fake_product(void) { counts[PRODUCTS]++; return launched(stream_of_handle) ? 13 : 0; }  // 13: CUBLAS_STATUS_EXECUTION_FAILED

EXPORTED int cublasCreate_v2(void **handle) { *handle = malloc(8); return 0; }
EXPORTED int cublasDestroy_v2(void *handle) { return 0; }
EXPORTED int cublasSetStream_v2(void *handle, cudaStream_t stream) { stream_of_handle = stream; return 0; }
EXPORTED int cublasGetMathMode(void *handle, int *mode) { *mode = 0; return 0; }
EXPORTED int cublasGetPointerMode_v2(void *handle, int *mode) { *mode = 0; return 0; }
EXPORTED size_t cublasLtGetVersion(void) { return 130400; }
EXPORTED int cublasLtMatmulDescCreate(void **handle, int compute, int scale) { *handle = malloc(8); return 0; }
EXPORTED int cublasLtMatrixLayoutCreate(void **handle, int type, unsigned long rows, unsigned long columns, long stride) {
  *handle = malloc(8);
  return 0;
}
EXPORTED int cublasLtMatmulPreferenceCreate(void **handle) { *handle = malloc(8); return 0; }
EXPORTED int cublasLtMatmulDescDestroy(void *handle) { free(handle); return 0; }
EXPORTED int cublasLtMatrixLayoutDestroy(void *handle) { free(handle); return 0; }
EXPORTED int cublasLtMatmulPreferenceDestroy(void *handle) { free(handle); return 0; }
EXPORTED int cublasLtMatmulAlgoGetHeuristic(void *handle, void *operation, void *a, void *b, void *c, void *d, void *preference,
                                            int wanted, void *results, int *found) {
  *found = 1;
  return 0;
}
EXPORTED int cublasLtMatmul(void *handle, void *description, void *alpha, void *a, void *a_layout, void *b, void *b_layout, void *beta,
                            void *c, void *c_layout, void *d, void *d_layout, void *algorithm, void *workspace, size_t size,
                            cudaStream_t stream) {
  counts[PRODUCTS]++;
  return launched(stream) ? 13 : 0;
}
