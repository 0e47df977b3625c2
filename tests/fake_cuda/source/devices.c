// Devices and contexts. A process has a context on a device from the first call that needs one, until it ends.
#include "fake.h"

static __thread int current = 0;
static __thread cudaError_t last_error = 0;
static int has_context[MAX_DEVICES];

static long number(const char *name, long otherwise) {
  const char *text = getenv(name);
  return text && *text ? atol(text) : otherwise;
}

int current_device(void) { return current; }
int num_devices(void) { return (int)number("FAKE_CUDA_DEVICES", 1); }
size_t device_bytes(void) { return (size_t)number("FAKE_CUDA_BYTES", 80L << 30); }

static int is_full(int device) {
  const char *full = getenv("FAKE_CUDA_FULL");
  return full && strchr(full, '0' + device);
}

cudaError_t failed(cudaError_t error) { return last_error = error; }

cudaError_t use_device(void) {
  if (broken) return failed(broken);
  if (has_context[current]) return cudaSuccess;
  if (is_full(current)) return failed(cudaErrorMemoryAllocation);
  has_context[current] = 1;
  const char *path = getenv("FAKE_CUDA_CONTEXTS");
  FILE *file = path ? fopen(path, "a") : NULL;
  if (file) {
    fprintf(file, "%d %d\n", (int)getpid(), current);
    fclose(file);
  }
  return cudaSuccess;
}

EXPORTED int fake_cuda_has_context(int device) { return has_context[device]; }

EXPORTED cudaError_t cudaGetDeviceCount(int *count) { *count = num_devices(); return cudaSuccess; }
EXPORTED cudaError_t cudaGetDevice(int *device) { *device = current; return cudaSuccess; }
EXPORTED cudaError_t cudaSetDevice(int device) {  // since CUDA 12 this makes a context
  if (device < 0 || device >= num_devices()) return failed(cudaErrorInvalidDevice);
  int before = current;
  current = device;
  cudaError_t error = use_device();
  if (error) current = before;
  return error;
}
EXPORTED cudaError_t cudaGetLastError(void) {
  if (broken) return broken;
  cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}
EXPORTED cudaError_t cudaPeekAtLastError(void) { return broken ? broken : last_error; }
EXPORTED cudaError_t cudaDriverGetVersion(int *version) { *version = 13020; return cudaSuccess; }
EXPORTED cudaError_t cudaRuntimeGetVersion(int *version) { *version = 13020; return cudaSuccess; }
EXPORTED cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device) {
  memset(p, 0, sizeof *p);
  snprintf(p->name, sizeof p->name, "Fake H100");
  p->totalGlobalMem = device_bytes();
  p->major = 9;
  p->multiProcessorCount = 132;
  p->warpSize = 32;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsPerMultiProcessor = 2048;
  p->maxBlocksPerMultiProcessor = 32;
  p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
  p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 2147483647;
  p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->sharedMemPerBlock = 49152;
  p->sharedMemPerBlockOptin = 232448;
  p->sharedMemPerMultiprocessor = 233472;
  p->regsPerBlock = p->regsPerMultiprocessor = 65536;
  p->l2CacheSize = 50 << 20;
  p->textureAlignment = 512;
  p->memoryBusWidth = 5120;
  p->unifiedAddressing = p->concurrentKernels = p->cooperativeLaunch = 1;
  return cudaSuccess;
}
EXPORTED cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
  switch ((int)attribute) {
    case cudaDevAttrMultiProcessorCount: *value = 132; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 49152; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 232448; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = 233472; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    case cudaDevAttrMaxGridDimX: *value = 2147483647; break;
    case cudaDevAttrMaxGridDimY: case cudaDevAttrMaxGridDimZ: *value = 65535; break;
    case cudaDevAttrL2CacheSize: *value = 50 << 20; break;
    default: *value = 1;
  }
  return cudaSuccess;
}
EXPORTED cudaError_t cudaDeviceGetPCIBusId(char *text, int length, int device) {
  snprintf(text, length, "0000:%02x:00.0", device);
  return cudaSuccess;
}
EXPORTED cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int other) { *can = 0; return cudaSuccess; }
EXPORTED cudaError_t cudaDeviceEnablePeerAccess(int device, unsigned flags) { return cudaSuccess; }
EXPORTED cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
  if (least) *least = 0;
  if (greatest) *greatest = -5;
  return cudaSuccess;
}
EXPORTED cudaError_t cudaProfilerStart(void) { return cudaSuccess; }
EXPORTED cudaError_t cudaProfilerStop(void) { return cudaSuccess; }

// The driver's functions that torch asks the runtime for: one of them tells whether there is a context, the others do nothing.
static int do_nothing(void) { return 0; }
static int primary_context_state(int device, unsigned *flags, int *is_active) {
  *flags = 0;
  *is_active = has_context[device];
  return 0;
}
EXPORTED cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function, unsigned version, unsigned long long flags,
                                                      enum cudaDriverEntryPointQueryResult *result) {
  *function = strcmp(symbol, "cuDevicePrimaryCtxGetState") ? (void *)do_nothing : (void *)primary_context_state;
  if (result) *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}
