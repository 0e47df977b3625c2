// Captures and graphs. While a capture is under way, calls that wait, allocate or ask are forbidden in threads and modes
// that do not relax it; one that is made breaks the capture, which then ends without a graph.
#include "fake.h"

Capture capture;
const char *last_offence = "";
static __thread enum cudaStreamCaptureMode mode_of_thread = cudaStreamCaptureModeGlobal;

int is_recorded(cudaStream_t handle) { return capture.is_active && stream_of(handle)->is_capturing; }

int is_forbidden(void) {
  return capture.is_active && capture.mode != cudaStreamCaptureModeRelaxed && mode_of_thread != cudaStreamCaptureModeRelaxed;
}

cudaError_t offend(const char *what) {
  counts[FORBIDDEN]++;
  last_offence = what;
  if (capture.is_active) capture.is_broken = 1;
  return failed(cudaErrorStreamCaptureUnsupported);
}

EXPORTED cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode) {
  enum cudaStreamCaptureMode before = mode_of_thread;
  mode_of_thread = *mode;
  *mode = before;
  return cudaSuccess;
}

static cudaError_t begin(cudaStream_t handle, enum cudaStreamCaptureMode mode, Graph *graph) {
  if ((size_t)handle < 16) return offend("a capture of the default stream");
  if (use_device()) return cudaErrorMemoryAllocation;
  capture = (Capture){1, 0, mode, capture.number + 1, graph};
  stream_of(handle)->is_capturing = 1;
  return cudaSuccess;
}
EXPORTED cudaError_t cudaStreamBeginCapture(cudaStream_t handle, enum cudaStreamCaptureMode mode) {
  return begin(handle, mode, calloc(1, sizeof(Graph)));
}
EXPORTED cudaError_t cudaStreamBeginCaptureToGraph(cudaStream_t handle, cudaGraph_t graph, const cudaGraphNode_t *nodes,
                                                   const cudaGraphEdgeData *edges, size_t count, enum cudaStreamCaptureMode mode) {
  return begin(handle, mode, (Graph *)graph);
}
EXPORTED cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t *graph) {
  if (!capture.is_active) return failed(cudaErrorIllegalState);
  capture.is_active = 0;
  leave_capture();
  *graph = capture.is_broken ? NULL : (cudaGraph_t)capture.graph;
  return capture.is_broken ? failed(cudaErrorStreamCaptureInvalidated) : cudaSuccess;
}
EXPORTED cudaError_t cudaStreamIsCapturing(cudaStream_t handle, enum cudaStreamCaptureStatus *status) {
  *status = !is_recorded(handle)   ? cudaStreamCaptureStatusNone
            : capture.is_broken ? cudaStreamCaptureStatusInvalidated
                                : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}
EXPORTED cudaError_t cudaStreamGetCaptureInfo(cudaStream_t handle, enum cudaStreamCaptureStatus *status, unsigned long long *number,
                                              cudaGraph_t *graph, const cudaGraphNode_t **nodes, const cudaGraphEdgeData **edges,
                                              size_t *count) {
  cudaStreamIsCapturing(handle, status);
  if (number) *number = capture.number;
  if (graph) *graph = (cudaGraph_t)capture.graph;
  if (nodes) *nodes = NULL;
  if (edges) *edges = NULL;
  if (count) *count = 0;
  return cudaSuccess;
}
EXPORTED cudaError_t cudaStreamUpdateCaptureDependencies(cudaStream_t handle, cudaGraphNode_t *nodes, const cudaGraphEdgeData *edges,
                                                         size_t count, unsigned flags) {
  return cudaSuccess;
}

EXPORTED cudaError_t cudaGraphCreate(cudaGraph_t *graph, unsigned flags) {
  *graph = (cudaGraph_t)calloc(1, sizeof(Graph));
  return cudaSuccess;
}
EXPORTED cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long flags) {
  *executable = (cudaGraphExec_t)graph;
  return cudaSuccess;
}
EXPORTED cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long flags) {
  return cudaGraphInstantiateWithFlags(executable, graph, flags);
}
EXPORTED cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t handle) {
  if (broken) return failed(broken);
  counts[REPLAYS]++;
  stream_of(handle)->num_launches++;
  return cudaSuccess;
}
EXPORTED cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return cudaSuccess; }
EXPORTED cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) { return cudaSuccess; }
EXPORTED cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count) {
  if (!nodes) *count = ((Graph *)graph)->num_nodes;
  return cudaSuccess;
}
EXPORTED cudaError_t cudaGraphNodeGetDependencies(cudaGraphNode_t node, cudaGraphNode_t *others, cudaGraphEdgeData *edges, size_t *count) {
  *count = 0;
  return cudaSuccess;
}
EXPORTED cudaError_t cudaUserObjectCreate(cudaUserObject_t *object, void *pointer, cudaHostFn_t destroy, unsigned count, unsigned flags) {
  *object = malloc(1);
  return cudaSuccess;
}
EXPORTED cudaError_t cudaUserObjectRelease(cudaUserObject_t object, unsigned count) { return cudaSuccess; }
EXPORTED cudaError_t cudaGraphRetainUserObject(cudaGraph_t graph, cudaUserObject_t object, unsigned count, unsigned flags) {
  return cudaSuccess;
}
