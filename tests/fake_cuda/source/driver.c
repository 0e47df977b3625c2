// libcuda.so.1, the driver: it only has to be there. Whoever asks it for devices (NVML-free tools do) is told that there are none.
#define EXPORTED __attribute__((visibility("default")))
#define DONE(name) EXPORTED int name(void) { return 0; }
#define UNKNOWN(name) EXPORTED int name(void) { return 999; }

EXPORTED int cuCtxGetCurrent(void **context) { *context = (void *)1; return 0; }
int fake_cuda_has_context(int device) __attribute__((weak));
EXPORTED int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *is_active) {
  *flags = 0;
  *is_active = fake_cuda_has_context && fake_cuda_has_context(device);
  return 0;
}
DONE(cuCtxSetCurrent)
DONE(cuDeviceGet)
DONE(cuDeviceGetAttribute)
DONE(cuDevicePrimaryCtxRetain)
DONE(cuFuncGetAttribute)
DONE(cuFuncSetAttribute)
DONE(cuFuncSetCacheConfig)
DONE(cuGetErrorString)
DONE(cuLaunchCooperativeKernel)
DONE(cuLaunchKernel)
DONE(cuLinkAddData_v2)
DONE(cuLinkComplete)
DONE(cuLinkCreate_v2)
DONE(cuModuleGetFunction)
DONE(cuModuleLoad)
DONE(cuModuleLoadData)
DONE(cuModuleLoadDataEx)
DONE(cuModuleUnload)
DONE(cuOccupancyMaxActiveBlocksPerMultiprocessor)
DONE(cuPointerGetAttribute)
DONE(cuTensorMapEncodeTiled)
UNKNOWN(cuInit)
UNKNOWN(cuDriverGetVersion)
UNKNOWN(cuDeviceGetCount)
UNKNOWN(cuGetProcAddress_v2)
UNKNOWN(cuGetErrorName)
