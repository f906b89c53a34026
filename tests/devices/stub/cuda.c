/* A fake libcuda.so.1: as much of the driver API as helexa asks for, answered from the state file.
 *
 * The bindings find every function through cuGetProcAddress_v2, by its name without "_v2".
 */
#include "state.h"

typedef int CUresult;
typedef int CUdevice;
typedef struct context *CUcontext;

enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    NOT_INITIALIZED = 3,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    NOT_FOUND = 500,
};
enum { INTEGRATED = 18, CAPABILITY_MAJOR = 75, CAPABILITY_MINOR = 76 };

struct context {
    int device;
    int retained;
};

static struct context contexts[8];
static int initialised;
static __thread CUcontext stack[4];
static __thread int depth;

static CUresult known(CUdevice device) {
    if (!initialised) return NOT_INITIALIZED;
    return device >= 0 && device < number(-1, "devices", 2) ? SUCCESS : INVALID_DEVICE;
}

CUresult cuInit(unsigned flags) {
    CUresult answer = number(-1, "cuInit", SUCCESS);
    count_call("cuInit");
    initialised = flags == 0 && answer == SUCCESS;
    return answer;
}

CUresult cuDriverGetVersion(int *version) {
    *version = number(-1, "cuda_version", 13000);
    return SUCCESS;
}

CUresult cuDeviceGetCount(int *count) {
    if (!initialised) return NOT_INITIALIZED;
    *count = number(-1, "devices", 2);
    return SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    *device = ordinal;
    return known(ordinal);
}

CUresult cuDeviceGetName(char *name, int length, CUdevice device) {
    CUresult answer = known(device);
    if (answer == SUCCESS) text(device, "name", "Fake GPU", name, length);
    return answer;
}

/* GPU-fa000000-0000-0000-0000-00000000000N, N being the ordinal. */
CUresult cuDeviceGetUuid_v2(unsigned char *uuid, CUdevice device) {
    memset(uuid, 0, 16);
    uuid[0] = 0xfa;
    uuid[15] = device;
    return known(device);
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    *bytes = number(device, "total_mb", 24576) * MB;
    return known(device);
}

CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
    switch (attribute) {
    case INTEGRATED: *value = number(device, "integrated", 0); break;
    case CAPABILITY_MAJOR: *value = number(device, "major", 8); break;
    case CAPABILITY_MINOR: *value = number(device, "minor", 6); break;
    default: return INVALID_VALUE;
    }
    return known(device);
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    CUresult answer = known(device);
    count_call("cuDevicePrimaryCtxRetain");
    if (answer == SUCCESS) answer = number(device, "retain", SUCCESS);
    if (answer != SUCCESS) return answer;
    *context = &contexts[device];
    (*context)->device = device;
    (*context)->retained++;
    return SUCCESS;
}

CUresult cuCtxPushCurrent_v2(CUcontext context) {
    if (depth == (int)(sizeof stack / sizeof *stack)) return INVALID_VALUE;
    stack[depth++] = context;
    return SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context) {
    if (depth > 0) depth--;
    return context ? cuCtxPushCurrent_v2(context) : SUCCESS;
}

CUresult cuCtxPopCurrent_v2(CUcontext *context) {
    if (depth == 0) return INVALID_CONTEXT;
    *context = stack[--depth];
    return SUCCESS;
}

CUresult cuCtxSynchronize(void) {
    CUcontext current = depth ? stack[depth - 1] : NULL;
    return current ? number(current->device, "synchronize", SUCCESS) : INVALID_CONTEXT;
}

CUresult cuMemGetInfo_v2(size_t *free, size_t *total) {
    CUcontext current = depth ? stack[depth - 1] : NULL;
    if (!current) return INVALID_CONTEXT;
    *total = number(current->device, "total_mb", 24576) * MB;
    *free = *total - number(current->device, "used_mb", 1024) * MB;
    return number(current->device, "synchronize", SUCCESS);
}

#ifndef BEFORE_CUDA_12
static const struct {
    const char *name;
    void *function;
} exported[] = {
    {"cuInit", cuInit},
    {"cuDriverGetVersion", cuDriverGetVersion},
    {"cuDeviceGetCount", cuDeviceGetCount},
    {"cuDeviceGet", cuDeviceGet},
    {"cuDeviceGetName", cuDeviceGetName},
    {"cuDeviceGetUuid", cuDeviceGetUuid_v2},
    {"cuDeviceTotalMem", cuDeviceTotalMem_v2},
    {"cuDeviceGetAttribute", cuDeviceGetAttribute},
    {"cuDevicePrimaryCtxRetain", cuDevicePrimaryCtxRetain},
    {"cuCtxSetCurrent", cuCtxSetCurrent},
    {"cuCtxPushCurrent", cuCtxPushCurrent_v2},
    {"cuCtxPopCurrent", cuCtxPopCurrent_v2},
    {"cuCtxSynchronize", cuCtxSynchronize},
    {"cuMemGetInfo", cuMemGetInfo_v2},
};

CUresult cuGetProcAddress_v2(const char *name, void **function, int version,
                             unsigned long long flags, int *found) {
    (void)version, (void)flags;
    *function = NULL;
    for (size_t i = 0; i < sizeof exported / sizeof *exported; i++)
        if (strcmp(name, exported[i].name) == 0) *function = exported[i].function;
    if (found) *found = *function ? 0 : 1;
    return *function ? SUCCESS : NOT_FOUND;
}
#endif
