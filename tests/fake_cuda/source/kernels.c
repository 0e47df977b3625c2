// Kernels do nothing. What counts is on which stream they are, whether they are captured, and when one breaks the device.
#include "fake.h"

long counts[NUM_COUNTERS];
int broken = 0;

EXPORTED long fake_cuda_count(int which) { return counts[which]; }
EXPORTED const char *fake_cuda_last_offence(void) { return last_offence; }

// The planted fault: this kernel reads an illegal address, if the file is there to be taken away.
static void break_if_planted(void) {
  const char *file = getenv("FAKE_CUDA_BREAK"), *at = getenv("FAKE_CUDA_BREAK_AT");
  if (file && counts[KERNELS] >= (at ? atol(at) : 1000) && unlink(file) == 0) broken = cudaErrorIllegalAddress;
}

cudaError_t launched(cudaStream_t handle) {
  break_if_planted();
  cudaError_t error = use_device();
  if (error) return error;
  counts[KERNELS]++;
  if (is_recorded(handle)) {
    counts[CAPTURED]++;
    capture.graph->num_nodes++;
    return cudaSuccess;
  }
  stream_of(handle)->num_launches++;
  if (capture.is_active) {
    counts[STRAY]++;
    last_offence = "a kernel was launched beside the capture";
  }
  return cudaSuccess;
}

EXPORTED cudaError_t cudaLaunchKernel(const void *f, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream) {
  return launched(stream);
}
EXPORTED cudaError_t __cudaLaunchKernel(cudaKernel_t k, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream) {
  return launched(stream);
}
EXPORTED cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *configuration, const void *f, void **arguments) {
  return launched(configuration->stream);
}
EXPORTED cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *data) {
  if (!is_recorded(stream)) function(data);
  return cudaSuccess;
}
EXPORTED cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t function, void *data, unsigned flags) {
  function(stream, cudaSuccess, data);
  return cudaSuccess;
}
EXPORTED cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *f) { *kernel = (cudaKernel_t)f; return cudaSuccess; }
EXPORTED cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *f) {
  memset(attributes, 0, sizeof *attributes);
  attributes->maxThreadsPerBlock = 1024;
  attributes->binaryVersion = attributes->ptxVersion = 90;
  attributes->numRegs = 32;
  attributes->maxDynamicSharedSizeBytes = 49152;
  return cudaSuccess;
}
EXPORTED cudaError_t cudaFuncSetAttribute(const void *f, enum cudaFuncAttribute attribute, int value) { return cudaSuccess; }
EXPORTED cudaError_t cudaKernelSetAttributeForDevice(cudaKernel_t k, enum cudaFuncAttribute attribute, int value, int device) {
  return cudaSuccess;
}
EXPORTED cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *count, const void *f, int block, size_t shared) {
  *count = 2;
  return cudaSuccess;
}
EXPORTED cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *count, const void *f, int block, size_t shared,
                                                                            unsigned flags) {
  *count = 2;
  return cudaSuccess;
}
EXPORTED cudaError_t cudaGetSymbolAddress(void **address, const void *symbol) {
  static char room[1 << 16];
  *address = room;
  return cudaSuccess;
}
