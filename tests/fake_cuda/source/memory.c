// Memory and copies. Blocks of a device and pinned blocks are pages of the host; a device holds no more than its size.
#include "fake.h"

typedef struct {
  char *start;
  size_t size;
  int device;  // or PINNED
} Block;
#define PINNED -1
#define PAGEABLE_MEMORY -2

static Block blocks[1 << 16];
static int num_blocks = 0;
static size_t used[MAX_DEVICES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

size_t used_bytes(int device) { return used[device]; }

static cudaError_t take(void **pointer, size_t size, int device) {
  size = size ? size : 1;
  void *pages = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) return failed(cudaErrorMemoryAllocation);
  pthread_mutex_lock(&lock);
  blocks[num_blocks++] = (Block){pages, size, device};
  if (device >= 0) used[device] += size;
  pthread_mutex_unlock(&lock);
  *pointer = pages;
  return cudaSuccess;
}

static void give(void *pointer) {
  pthread_mutex_lock(&lock);
  for (int i = 0; i < num_blocks; i++)
    if (blocks[i].start == pointer) {
      if (blocks[i].device >= 0) used[blocks[i].device] -= blocks[i].size;
      munmap(pointer, blocks[i].size);
      blocks[i] = blocks[--num_blocks];
      break;
    }
  pthread_mutex_unlock(&lock);
}

// The device that a place lies on, PINNED, or PAGEABLE_MEMORY if it is none of ours.
static int place_of(const void *pointer) {
  int place = PAGEABLE_MEMORY;
  pthread_mutex_lock(&lock);
  for (int i = 0; i < num_blocks && place == PAGEABLE_MEMORY; i++)
    if ((char *)pointer >= blocks[i].start && (char *)pointer < blocks[i].start + blocks[i].size) place = blocks[i].device;
  pthread_mutex_unlock(&lock);
  return place;
}

EXPORTED cudaError_t cudaMalloc(void **pointer, size_t size) {
  cudaError_t error = use_device();
  if (error) return error;
  if (is_forbidden()) return offend("cudaMalloc");
  counts[ALLOCATIONS]++;
  if (used[current_device()] + size > device_bytes()) return failed(cudaErrorMemoryAllocation);
  return take(pointer, size, current_device());
}
EXPORTED cudaError_t cudaMallocAsync(void **pointer, size_t size, cudaStream_t s) { return cudaMalloc(pointer, size); }
EXPORTED cudaError_t cudaMallocManaged(void **pointer, size_t size, unsigned flags) { return cudaMalloc(pointer, size); }
EXPORTED cudaError_t cudaFree(void *pointer) {
  if (pointer && is_forbidden()) return offend("cudaFree");
  give(pointer);
  return cudaSuccess;
}
EXPORTED cudaError_t cudaFreeAsync(void *pointer, cudaStream_t s) { give(pointer); return cudaSuccess; }
EXPORTED cudaError_t cudaHostAlloc(void **pointer, size_t size, unsigned flags) {
  cudaError_t error = use_device();
  if (error) return error;
  return is_forbidden() ? offend("cudaHostAlloc") : take(pointer, size, PINNED);
}
EXPORTED cudaError_t cudaMallocHost(void **pointer, size_t size) { return cudaHostAlloc(pointer, size, 0); }
EXPORTED cudaError_t cudaFreeHost(void *pointer) { give(pointer); return cudaSuccess; }
EXPORTED cudaError_t cudaHostRegister(void *pointer, size_t size, unsigned flags) { return cudaSuccess; }
EXPORTED cudaError_t cudaHostUnregister(void *pointer) { return cudaSuccess; }
EXPORTED cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
  cudaError_t error = use_device();
  if (error) return error;
  *total = device_bytes();
  *free_bytes = *total - used[current_device()];
  return cudaSuccess;
}
EXPORTED cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, enum cudaMemPoolAttr attribute, void *value) { return cudaSuccess; }
EXPORTED cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *pointer) {
  int place = place_of(pointer);
  memset(attributes, 0, sizeof *attributes);
  attributes->type = place >= 0 ? cudaMemoryTypeDevice : place == PINNED ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
  attributes->device = place >= 0 ? place : 0;
  attributes->devicePointer = attributes->hostPointer = (void *)pointer;
  return cudaSuccess;
}

// --- copies ---
// What comes back from a device is what was copied to that very place, and else zeros, since nothing computed it: what lay
// there before could look like a result. A single number is always 0.

#define MAX_NUMBER 16  // bytes
static const void *sent[1 << 16];
static const void **slot_of(const void *pointer) { return &sent[((size_t)pointer >> 9) & 0xffff]; }

static cudaError_t copy(void *to, const void *from, size_t size, cudaStream_t stream) {
  cudaError_t error = use_device();
  if (error) return error;
  int target = place_of(to), source = place_of(from);
  if (is_recorded(stream)) {
    if (target == PAGEABLE_MEMORY || source == PAGEABLE_MEMORY) {
      counts[PAGEABLE]++;
      last_offence = "a copy from or to pageable memory was captured";
    }
    capture.graph->num_nodes++;
    return cudaSuccess;
  }
  if (capture.is_active) {
    counts[STRAY]++;
    last_offence = "a copy was made beside the capture";
  }
  stream_of(stream)->num_launches++;
  int comes_back = source >= 0 && target < 0;
  if (comes_back && (size <= MAX_NUMBER || *slot_of(from) != from)) {
    memset(to, 0, size);
    return cudaSuccess;
  }
  if (target >= 0 && source < 0) *slot_of(to) = to;
  memmove(to, from, size);
  return cudaSuccess;
}
EXPORTED cudaError_t cudaMemcpy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind) {
  counts[WAITS]++;
  return is_forbidden() ? offend("cudaMemcpy") : copy(to, from, size, 0);
}
EXPORTED cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind, cudaStream_t stream) {
  return copy(to, from, size, stream);
}
EXPORTED cudaError_t cudaMemcpyPeerAsync(void *to, int device, const void *from, int other, size_t size, cudaStream_t stream) {
  return copy(to, from, size, stream);
}
EXPORTED cudaError_t cudaMemcpyToSymbol(const void *symbol, const void *from, size_t size, size_t offset, enum cudaMemcpyKind kind) {
  return cudaSuccess;
}
EXPORTED cudaError_t cudaMemset(void *to, int value, size_t size) { memset(to, value, size); return cudaSuccess; }
EXPORTED cudaError_t cudaMemsetAsync(void *to, int value, size_t size, cudaStream_t stream) {
  cudaError_t error = launched(stream);
  if (!error && !is_recorded(stream)) memset(to, value, size);
  return error;
}
