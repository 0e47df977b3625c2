"""Which errors tell that memory ran out, and which only may."""

import pytest
import torch

from ablation.system.failures import failure

LACKING = [
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 18.0 GB)"),
    RuntimeError("NCCL error: unhandled cuda error, Cuda failure 2 'out of memory'"),
    RuntimeError("cudaErrorMemoryAllocation: out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"),
]
PERHAPS = [
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR"),
    RuntimeError("cuFFT error: CUFFT_INTERNAL_ERROR"),
]
OTHERS = [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
    RuntimeError("out of resource: shared memory, Required: 147456, Hardware limit: 101376"),
    RuntimeError("Expected all tensors to be on the same device"),
    ValueError("out of memory"),  # not of a kind that a library raises for it
]


def kind_of(error):
    return failure(error, "a smaller batch_size")["failure"]


@pytest.mark.parametrize("error", LACKING, ids=str)
def test_lack_of_memory_is_told_whoever_noticed_it(error):
    """Of torch, CUDA and the libraries on it alike, the failure is `memory`, and one sentence."""
    told = failure(error, "a smaller batch_size")
    assert (told["failure"], told["log"]) == ("memory", "")
    assert told["message"] == "out of memory; fewer --jobs, or a smaller batch_size, may help"


@pytest.mark.parametrize(("free", "kind"), [(2**20, "memory"), (2**34, "bug")])
@pytest.mark.parametrize("error", PERHAPS, ids=str)
def test_a_library_that_cannot_begin_lacks_memory_where_there_is_little(monkeypatch, error, free, kind):
    """Where the device is almost full that is why, else it is a bug to be told with its traceback."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 2**35))
    assert kind_of(error) == kind


@pytest.mark.parametrize("error", PERHAPS, ids=str)
def test_a_device_that_does_not_answer_explains_nothing(monkeypatch, error):
    """If the device is broken, asking how full it is raises; and without CUDA nothing is asked."""

    def broken():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    assert kind_of(error) == "bug"
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", broken)
    assert kind_of(error) == "bug"


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_other_errors_are_no_lack_of_memory(error):
    """A broken device, a wrong call, or a kernel that wants too much of a processor is a bug."""
    assert kind_of(error) == "bug"


def raised(handled, error):
    """An error that is raised while another is handled."""
    try:
        try:
            raise handled
        except Exception:
            raise error  # noqa: B904  without `from`, as in a `finally`
    except Exception as caught:
        return caught


def test_what_lack_of_memory_leads_to_is_lack_of_memory():
    """An error while the lack of memory was handled is told as that; one that hides it on purpose is not."""
    assert kind_of(raised(torch.OutOfMemoryError("CUDA out of memory"), ValueError("wrong state"))) == "memory"
    hiding = raised(torch.OutOfMemoryError("CUDA out of memory"), ValueError("wrong state"))
    hiding.__suppress_context__ = True
    assert kind_of(hiding) == "bug"
