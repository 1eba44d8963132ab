/* A libcuda.so.1 whose GPU is this machine's memory. Variables make it fail. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { DONE = 0, OUT_OF_MEMORY = 2, NO_DEVICE = 100, ILLEGAL_ADDRESS = 700 };

static int live; /* what was given and not taken back */

static int number(const char *name, int otherwise) {
    const char *value = getenv(name);
    return value ? atoi(value) : otherwise;
}

int stub_live(void) { return live; }

int cuInit(unsigned flags) { return number("STUB_CUDA_INIT", DONE); }
int cuDriverGetVersion(int *version) { *version = 13000; return DONE; }
int cuDeviceGetCount(int *n) { *n = number("STUB_CUDA_DEVICES", 1); return DONE; }
int cuDeviceGet(int *device, int index) { *device = index; return DONE; }
int cuDeviceGetName(char *name, int size, int device) {
    strncpy(name, "NVIDIA Test Card", size);
    return DONE;
}
int cuDeviceGetAttribute(int *value, int which, int device) {
    int capability = number("STUB_CAPABILITY", 89);
    if (which != 75 && which != 76) return 1;
    *value = which == 75 ? capability / 10 : capability % 10;
    return DONE;
}
int cuGetErrorString(int code, const char **words) {
    *words = code == OUT_OF_MEMORY ? "out of memory"
           : code == NO_DEVICE ? "no CUDA-capable device is detected"
           : code == ILLEGAL_ADDRESS ? "an illegal memory access was encountered"
           : code == 803 ? "system has unsupported display driver / cuda driver combination"
           : "unknown error";
    return DONE;
}
int cuDevicePrimaryCtxRetain(uint64_t *context, int device) { *context = 7; live++; return DONE; }
int cuDevicePrimaryCtxRelease_v2(int device) { live--; return DONE; }
int cuCtxSetCurrent(void *context) { return context == (void *)7 ? DONE : 1; }
int cuMemAlloc_v2(uint64_t *address, size_t n) {
    if (getenv("STUB_CUDA_FULL")) return OUT_OF_MEMORY;
    *address = (uint64_t)(uintptr_t)malloc(n);
    live++;
    return DONE;
}
int cuMemFree_v2(uint64_t address) { free((void *)(uintptr_t)address); live--; return DONE; }
int cuMemHostAlloc(void **pointer, size_t n, unsigned flags) {
    *pointer = malloc(n);
    live++;
    return DONE;
}
int cuMemFreeHost(void *pointer) { free(pointer); live--; return DONE; }
int cuStreamCreate(uint64_t *stream, unsigned flags) { *stream = 9; live++; return DONE; }
int cuStreamDestroy_v2(void *stream) { live--; return DONE; }
int cuStreamSynchronize(void *stream) {
    return stream == (void *)9 ? number("STUB_CUDA_FAULT", DONE) : 1;
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t n, void *stream) {
    memcpy((void *)(uintptr_t)to, from, n);
    return DONE;
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t n, void *stream) {
    memcpy(to, (const void *)(uintptr_t)from, n);
    return DONE;
}
