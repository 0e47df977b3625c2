"""The rules of the stand-in for CUDA, one by one, called as torch calls CUDA's runtime."""

import ctypes
from ctypes import byref, c_int, c_size_t, c_void_p

import pytest

from tests.fake_cuda.counters import ALLOCATIONS, CAPTURED, FORBIDDEN, KERNELS, PAGEABLE, PRODUCTS, REPLAYS, STRAY, WAITS

DONE, NO_MEMORY, BAD_DEVICE, UNSUPPORTED, INVALIDATED, ILLEGAL_ADDRESS = 0, 2, 101, 900, 901, 700
GLOBAL, THREAD_LOCAL, RELAXED = 0, 1, 2  # modes of a capture
TO_DEVICE, TO_HOST = 1, 2
MB = 2**20


class Dim3(ctypes.Structure):
    _fields_ = [("x", ctypes.c_uint), ("y", ctypes.c_uint), ("z", ctypes.c_uint)]


ONE = Dim3(1, 1, 1)


def launch(fake, stream=None):
    """A kernel on that stream, or on the default one."""
    return fake.cudaLaunchKernel(c_void_p(1), ONE, ONE, None, c_size_t(0), stream)


def new_stream(fake):
    stream = c_void_p()
    assert fake.cudaStreamCreateWithFlags(byref(stream), 1) == DONE
    return stream


def new_event(fake, stream):
    """An event that is recorded on that stream."""
    event = c_void_p()
    assert fake.cudaEventCreateWithFlags(byref(event), 2) == DONE
    assert fake.cudaEventRecord(event, stream) == DONE
    return event


def allocate(fake, size, function="cudaMalloc"):
    pointer = c_void_p()
    further = (0,) if function == "cudaHostAlloc" else ()
    return getattr(fake, function)(byref(pointer), c_size_t(size), *further), pointer


def free_bytes(fake):
    free, total = c_size_t(), c_size_t()
    assert fake.cudaMemGetInfo(byref(free), byref(total)) == DONE
    return free.value


# --- devices and contexts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("setting", "expected"), [(None, 1), ("2", 2), ("0", 0)])
def test_there_are_as_many_devices_as_is_said(fake, monkeypatch, setting, expected):
    """One without a setting; a device beyond them cannot be chosen."""
    if setting:
        monkeypatch.setenv("FAKE_CUDA_DEVICES", setting)
    count = c_int()
    fake.cudaGetDeviceCount(byref(count))
    assert count.value == expected
    assert fake.cudaSetDevice(expected) == BAD_DEVICE


LOOKING = ("cudaGetDeviceCount", "cudaGetDevice", "cudaGetDeviceProperties", "cudaDeviceGetAttribute", "cudaDriverGetVersion")
NEEDING = {
    "cudaSetDevice": (0,),
    "cudaMalloc": (byref(c_void_p()), c_size_t(1)),
    "cudaHostAlloc": (byref(c_void_p()), c_size_t(1), 0),
    "cudaMemGetInfo": (byref(c_size_t()), byref(c_size_t())),
    "cudaStreamCreateWithFlags": (byref(c_void_p()), 1),
    "cudaEventCreateWithFlags": (byref(c_void_p()), 2),
    "cudaDeviceSynchronize": (),
    "cudaLaunchKernel": (c_void_p(1), ONE, ONE, None, c_size_t(0), None),
}


@pytest.mark.parametrize("name", LOOKING)
def test_to_look_makes_no_context(fake, monkeypatch, tmp_path, name):
    """Numbers, names and properties of devices are told without one, and so without taking memory there."""
    monkeypatch.setenv("FAKE_CUDA_CONTEXTS", str(tmp_path / "contexts"))
    room = ctypes.create_string_buffer(4096)
    arguments = {"cudaDeviceGetAttribute": (room, 16, 0), "cudaGetDeviceProperties": (room, 0)}.get(name, (room,))
    assert getattr(fake, name)(*arguments) == DONE
    assert not fake.fake_cuda_has_context(0)
    assert not (tmp_path / "contexts").exists()


@pytest.mark.parametrize("name", NEEDING)
def test_what_needs_a_context_makes_one(fake, monkeypatch, tmp_path, name):
    """Once on each device, which is noted; on a full device it fails for lack of memory instead."""
    monkeypatch.setenv("FAKE_CUDA_CONTEXTS", str(tmp_path / "contexts"))
    monkeypatch.setenv("FAKE_CUDA_FULL", "0")
    assert getattr(fake, name)(*NEEDING[name]) == NO_MEMORY
    assert fake.cudaGetLastError() == NO_MEMORY
    assert fake.cudaGetLastError() == DONE
    assert not fake.fake_cuda_has_context(0)
    monkeypatch.setenv("FAKE_CUDA_FULL", "1")
    for _ in range(2):
        assert getattr(fake, name)(*NEEDING[name]) == DONE
    assert fake.fake_cuda_has_context(0)
    assert len((tmp_path / "contexts").read_text().splitlines()) == 1


def test_each_device_has_a_context_and_memory_of_its_own(fake, monkeypatch):
    """What is allocated on one leaves the other empty."""
    monkeypatch.setenv("FAKE_CUDA_DEVICES", "2")
    monkeypatch.setenv("FAKE_CUDA_BYTES", str(8 * MB))
    assert fake.cudaSetDevice(1) == DONE
    assert (fake.fake_cuda_has_context(0), fake.fake_cuda_has_context(1)) == (0, 1)
    assert allocate(fake, 3 * MB)[0] == DONE
    assert free_bytes(fake) == 5 * MB
    assert fake.cudaSetDevice(0) == DONE
    assert free_bytes(fake) == 8 * MB


# --- memory and copies -----------------------------------------------------------------------------------------------------------


def test_a_device_holds_no_more_than_its_size(fake, monkeypatch):
    """What does not fit is a lack of memory, and what is freed is free again; pinned memory takes none of the device."""
    monkeypatch.setenv("FAKE_CUDA_BYTES", str(8 * MB))
    error, block = allocate(fake, 6 * MB)
    assert (error, free_bytes(fake)) == (DONE, 2 * MB)
    assert allocate(fake, 3 * MB)[0] == NO_MEMORY
    assert allocate(fake, 3 * MB, "cudaHostAlloc")[0] == DONE
    assert fake.cudaFree(block) == DONE
    assert free_bytes(fake) == 8 * MB
    assert allocate(fake, 8 * MB)[0] == DONE
    assert fake.fake_cuda_count(ALLOCATIONS) == 3


def kind_of(fake, pointer):
    """(kind, device) as the runtime tells them: 0 not CUDA's, 1 pinned, 2 of a device."""
    attributes = (c_int * 64)()
    fake.cudaPointerGetAttributes(attributes, pointer)
    return attributes[0], attributes[1]


def test_the_runtime_knows_its_memory(fake, monkeypatch):
    """Memory of a device, pinned memory and any other are told apart, also in their middle."""
    monkeypatch.setenv("FAKE_CUDA_DEVICES", "2")
    fake.cudaSetDevice(1)
    block, pinned, own = allocate(fake, 100)[1], allocate(fake, 100, "cudaHostAlloc")[1], ctypes.create_string_buffer(100)
    assert kind_of(fake, block) == kind_of(fake, c_void_p(block.value + 99)) == (2, 1)
    assert kind_of(fake, pinned)[0] == 1
    assert kind_of(fake, own)[0] == 0


def there_and_back(fake, size, *, is_computed):
    """What comes back of so many bytes that were copied to a device, or of what is computed there."""
    sent, back, block = (
        ctypes.create_string_buffer(b"x" * size, size),
        ctypes.create_string_buffer(b"?" * size, size),
        allocate(fake, size)[1],
    )
    if not is_computed:
        fake.cudaMemcpy(block, sent, c_size_t(size), TO_DEVICE)
    fake.cudaMemcpy(back, block, c_size_t(size), TO_HOST)
    return back.raw


def test_only_what_was_sent_comes_back(fake):
    """Bytes that were copied to a device come back; what nothing computed is zero, and so is a single number, which would decide."""
    assert there_and_back(fake, 1000, is_computed=False) == b"x" * 1000
    assert there_and_back(fake, 1000, is_computed=True) == bytes(1000)
    assert there_and_back(fake, 8, is_computed=False) == bytes(8)
    assert fake.fake_cuda_count(WAITS) == 5  # a copy that is not asynchronous waits


# --- streams and events ------------------------------------------------------------------------------------------------------------


def test_streams_wait_by_events_alone(fake):
    """Work on a stream waits for that on another only once it waits for an event that was recorded after it."""
    first, second = new_stream(fake), new_stream(fake)
    launch(fake, second), launch(fake, second)
    assert fake.fake_cuda_not_awaited(first, second) == 2
    event = new_event(fake, second)
    launch(fake, second)
    assert fake.cudaStreamWaitEvent(first, event, 0) == DONE
    assert fake.fake_cuda_not_awaited(first, second) == 1
    assert fake.fake_cuda_not_awaited(None, second) == 3


def test_waiting_is_passed_on(fake):
    """A stream that waits for a second one waits for what that waited for."""
    first, second, third = (new_stream(fake) for _ in range(3))
    launch(fake, third)
    fake.cudaStreamWaitEvent(second, new_event(fake, third), 0)
    fake.cudaStreamWaitEvent(first, new_event(fake, second), 0)
    assert fake.fake_cuda_not_awaited(first, third) == 0


@pytest.mark.parametrize("how", ["cudaStreamSynchronize", "cudaDeviceSynchronize"])
def test_the_host_waits_for_all(fake, how):
    """After the host has waited nothing is left to wait for, on any stream; that is counted."""
    side = new_stream(fake)
    launch(fake, side)
    assert getattr(fake, how)(*([side] if how == "cudaStreamSynchronize" else [])) == DONE
    assert fake.fake_cuda_not_awaited(None, side) == 0
    assert fake.fake_cuda_count(WAITS) == 1


# --- captures -----------------------------------------------------------------------------------------------------------------------


def captured(fake, *calls, mode=THREAD_LOCAL):
    """What the calls return during a capture on a stream of its own, and how the capture ends: its status, and the graph."""
    stream, graph = new_stream(fake), c_void_p()
    assert fake.cudaStreamBeginCapture(stream, mode) == DONE
    found = [call(stream) for call in calls]
    return found, fake.cudaStreamEndCapture(stream, byref(graph)), graph


def test_what_is_captured_runs_when_it_is_replayed(fake):
    """Launches on the stream go into the graph, and are counted as its nodes; a replay is a launch."""
    _, status, graph = captured(fake, lambda stream: launch(fake, stream), lambda stream: launch(fake, stream))
    assert (status, fake.fake_cuda_count(CAPTURED), fake.fake_cuda_count(STRAY)) == (DONE, 2, 0)
    count = c_size_t()
    fake.cudaGraphGetNodes(graph, None, byref(count))
    assert count.value == 2
    side = new_stream(fake)
    assert fake.cudaGraphLaunch(graph, side) == DONE
    assert (fake.fake_cuda_count(REPLAYS), fake.fake_cuda_not_awaited(None, side)) == (1, 1)


FORBIDDEN_CALLS = {
    "cudaMalloc": lambda fake, _stream: allocate(fake, 1)[0],
    "cudaHostAlloc": lambda fake, _stream: allocate(fake, 1, "cudaHostAlloc")[0],
    "cudaFree": lambda fake, _stream: fake.cudaFree(c_void_p(64)),
    "cudaDeviceSynchronize": lambda fake, _stream: fake.cudaDeviceSynchronize(),
    "cudaMemcpy": lambda fake, _stream: fake.cudaMemcpy(
        ctypes.create_string_buffer(1), ctypes.create_string_buffer(1), c_size_t(1), TO_HOST
    ),
    "cudaStreamSynchronize": lambda fake, stream: fake.cudaStreamSynchronize(stream),
    "cudaStreamQuery": lambda fake, stream: fake.cudaStreamQuery(stream),
    "cudaEventQuery": lambda fake, stream: fake.cudaEventQuery(new_event(fake, stream)),
    "cudaEventSynchronize": lambda fake, stream: fake.cudaEventSynchronize(new_event(fake, stream)),
}


@pytest.mark.parametrize("name", FORBIDDEN_CALLS)
def test_a_capture_forbids_what_waits_allocates_or_asks(fake, name):
    """Such a call fails and breaks the capture, which ends without a graph; the next capture is whole."""
    found, status, graph = captured(fake, lambda stream: FORBIDDEN_CALLS[name](fake, stream))
    assert (found, status, graph.value) == ([UNSUPPORTED], INVALIDATED, None)
    assert fake.fake_cuda_count(FORBIDDEN) == 1
    assert fake.fake_cuda_last_offence().decode() == name
    _, status, graph = captured(fake, lambda stream: launch(fake, stream))
    assert (status, bool(graph.value)) == (DONE, True)


def test_a_relaxed_capture_or_thread_forbids_nothing_of_it(fake):
    """In the relaxed mode, of the capture or of the thread, allocating is allowed."""
    assert captured(fake, lambda _stream: allocate(fake, 1)[0], mode=RELAXED)[:2] == ([DONE], DONE)
    mode = c_int(RELAXED)
    fake.cudaThreadExchangeStreamCaptureMode(byref(mode))
    assert mode.value == GLOBAL
    assert captured(fake, lambda _stream: allocate(fake, 1)[0], mode=GLOBAL)[:2] == ([DONE], DONE)


def test_the_default_stream_cannot_be_captured(fake):
    """Nor any other with a handle of CUDA's own."""
    assert fake.cudaStreamBeginCapture(None, GLOBAL) == UNSUPPORTED


def test_what_waits_for_the_captured_stream_joins_the_capture(fake):
    """By an event of it; what runs on any other stream is beside the capture, and counted so."""
    other = new_stream(fake)

    def join(stream):
        fake.cudaStreamWaitEvent(other, new_event(fake, stream), 0)
        return launch(fake, other)

    captured(fake, join)
    assert (fake.fake_cuda_count(CAPTURED), fake.fake_cuda_count(STRAY)) == (1, 0)
    captured(fake, lambda _stream: launch(fake, other))
    assert (fake.fake_cuda_count(CAPTURED), fake.fake_cuda_count(STRAY)) == (1, 1)


@pytest.mark.parametrize(("place", "expected"), [("pinned", 0), ("pageable", 1)])
def test_a_captured_copy_needs_pinned_memory(fake, place, expected):
    """A graph would copy from where the host has other data by then."""
    source = allocate(fake, 64, "cudaHostAlloc")[1] if place == "pinned" else ctypes.create_string_buffer(64)
    block = allocate(fake, 64)[1]
    captured(fake, lambda stream: fake.cudaMemcpyAsync(block, source, c_size_t(64), TO_DEVICE, stream))
    assert fake.fake_cuda_count(PAGEABLE) == expected


# --- cuBLAS and faults ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cublasDgemm_v2", "cublasGemmEx", "cublasLtMatmul"])
def test_a_product_is_a_launch_on_the_stream_of_its_handle(fake, name):
    """Whichever function is asked for it."""
    handle, side = c_void_p(), new_stream(fake)
    fake.cublasCreate_v2(byref(handle))
    fake.cublasSetStream_v2(handle, side)
    assert getattr(fake, name)(*([None] * 15), side) == 0
    assert (fake.fake_cuda_count(PRODUCTS), fake.fake_cuda_not_awaited(None, side)) == (1, 1)


def test_a_broken_device_stays_broken(fake, monkeypatch, tmp_path):
    """The planted kernel ends in an illegal address, once; from then on every call of this process fails alike."""
    (tmp_path / "break").touch()
    monkeypatch.setenv("FAKE_CUDA_BREAK", str(tmp_path / "break"))
    monkeypatch.setenv("FAKE_CUDA_BREAK_AT", "2")
    assert [launch(fake) for _ in range(4)] == [DONE, DONE, ILLEGAL_ADDRESS, ILLEGAL_ADDRESS]
    assert not (tmp_path / "break").exists()
    assert fake.fake_cuda_count(KERNELS) == 2
    assert allocate(fake, 1)[0] == fake.cudaDeviceSynchronize() == fake.cudaGetLastError() == fake.cudaGetLastError() == ILLEGAL_ADDRESS
