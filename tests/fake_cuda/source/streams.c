// Streams and events. Work on a stream waits for earlier work on it alone, and for what it was told to wait for by events.
#include "fake.h"

static Stream defaults[MAX_DEVICES];  // each device's own stream; their numbers are the first
static Stream others[MAX_STREAMS];
static int num_others = 0;

Stream *stream_of(cudaStream_t handle) {
  if ((size_t)handle >= 16) return (Stream *)handle;  // small handles mean the default streams, legacy and per thread
  Stream *own = &defaults[current_device()];
  own->id = own->device = current_device();
  return own;
}

static void take_note(long *awaited, const Stream *of) {
  for (int i = 0; i < MAX_STREAMS; i++)
    if (of->awaited[i] > awaited[i]) awaited[i] = of->awaited[i];
  awaited[of->id] = of->num_launches;
}

// Whatever is launched after the host has waited comes after what it waited for, on every stream.
void host_waits_for(Stream *stream) {
  counts[WAITS]++;
  for (int i = 0; i < MAX_DEVICES; i++) take_note(defaults[i].awaited, stream);
  for (int i = 0; i < num_others; i++) take_note(others[i].awaited, stream);
}
void host_waits_for_all(void) {
  long before = counts[WAITS];
  for (int i = 0; i < MAX_DEVICES; i++) host_waits_for(&defaults[i]);
  for (int i = 0; i < num_others; i++) host_waits_for(&others[i]);
  counts[WAITS] = before + 1;
}

void leave_capture(void) {
  for (int i = 0; i < MAX_DEVICES; i++) defaults[i].is_capturing = 0;
  for (int i = 0; i < num_others; i++) others[i].is_capturing = 0;
}

// How many launches on the second stream the next launch on the first would not wait for.
EXPORTED long fake_cuda_not_awaited(cudaStream_t first, cudaStream_t second) {
  return stream_of(second)->num_launches - stream_of(first)->awaited[stream_of(second)->id];
}

EXPORTED cudaError_t cudaDeviceSynchronize(void) {
  cudaError_t error = use_device();
  if (error) return error;
  host_waits_for_all();
  return is_forbidden() ? offend("cudaDeviceSynchronize") : cudaSuccess;
}
EXPORTED cudaError_t cudaStreamCreateWithPriority(cudaStream_t *handle, unsigned flags, int priority) {
  cudaError_t error = use_device();
  if (error) return error;
  Stream *made = &others[num_others];
  made->id = MAX_DEVICES + num_others++;
  made->device = current_device();
  made->priority = priority;
  *handle = (cudaStream_t)made;
  return cudaSuccess;
}
EXPORTED cudaError_t cudaStreamCreateWithFlags(cudaStream_t *handle, unsigned flags) { return cudaStreamCreateWithPriority(handle, flags, 0); }
EXPORTED cudaError_t cudaStreamCreate(cudaStream_t *handle) { return cudaStreamCreateWithPriority(handle, 0, 0); }
EXPORTED cudaError_t cudaStreamDestroy(cudaStream_t handle) { return cudaSuccess; }
EXPORTED cudaError_t cudaStreamGetPriority(cudaStream_t handle, int *priority) {
  *priority = stream_of(handle)->priority;
  return cudaSuccess;
}
EXPORTED cudaError_t cudaStreamQuery(cudaStream_t handle) {
  return stream_of(handle)->is_capturing || is_forbidden() ? offend("cudaStreamQuery") : cudaSuccess;
}
EXPORTED cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  cudaError_t error = use_device();
  if (error) return error;
  host_waits_for(stream_of(handle));
  return stream_of(handle)->is_capturing || is_forbidden() ? offend("cudaStreamSynchronize") : cudaSuccess;
}
EXPORTED cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned flags) {
  Stream *stream = stream_of(handle);
  const long *awaited = ((Event *)event)->awaited;
  for (int i = 0; i < MAX_STREAMS; i++)
    if (awaited[i] > stream->awaited[i]) stream->awaited[i] = awaited[i];
  if (capture.is_active && ((Event *)event)->is_captured) stream->is_capturing = 1;  // it joins the capture
  return cudaSuccess;
}

EXPORTED cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
  cudaError_t error = use_device();
  if (!error) *event = (cudaEvent_t)calloc(1, sizeof(Event));
  return error;
}
EXPORTED cudaError_t cudaEventCreate(cudaEvent_t *event) { return cudaEventCreateWithFlags(event, 0); }
EXPORTED cudaError_t cudaEventDestroy(cudaEvent_t event) { free(event); return cudaSuccess; }
EXPORTED cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t handle, unsigned flags) {
  Event *recorded = (Event *)event;
  memset(recorded->awaited, 0, sizeof recorded->awaited);
  take_note(recorded->awaited, stream_of(handle));
  recorded->is_captured = is_recorded(handle);
  return cudaSuccess;
}
EXPORTED cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) { return cudaEventRecordWithFlags(event, handle, 0); }
EXPORTED cudaError_t cudaEventQuery(cudaEvent_t event) {
  return (capture.is_active && ((Event *)event)->is_captured) || is_forbidden() ? offend("cudaEventQuery") : cudaSuccess;
}
EXPORTED cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  counts[WAITS]++;
  return is_forbidden() ? offend("cudaEventSynchronize") : cudaSuccess;
}
EXPORTED cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to) { *milliseconds = 1; return cudaSuccess; }
