/* A fake libnvidia-ml.so.1: as much of NVML as helexa asks for, answered from the state file.
 *
 * A device handle is the card's ordinal plus one.  "N.lost" is the code that every reading of a
 * card answers, "N.no_memory" the one its memory answers, "N.pid" and "N.pid_mb" one foreign
 * process, "N.own_mb" the part of this very process.
 */
#include "state.h"

typedef int nvmlReturn_t;
typedef long nvmlDevice_t;

enum { SUCCESS = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7 };

typedef struct {
    unsigned version;
    unsigned long long total, reserved, free, used;
} nvmlMemory_v2_t;

typedef struct {
    unsigned gpu, memory;
} nvmlUtilization_t;

typedef struct {
    unsigned version;
    int sensor, temperature;
} nvmlTemperature_t;

typedef struct {
    unsigned count;
    struct {
        int controller, default_min, default_max, current, target;
    } sensor[3];
} nvmlGpuThermalSettings_t;

typedef struct {
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
} nvmlProcessInfo_t;

static int ordinal(nvmlDevice_t device) { return (int)device - 1; }

static nvmlReturn_t lost(nvmlDevice_t device) { return number(ordinal(device), "lost", SUCCESS); }

nvmlReturn_t nvmlInit_v2(void) {
    count_call("nvmlInit");
    return number(-1, "nvmlInit", SUCCESS);
}

nvmlReturn_t nvmlShutdown(void) {
    count_call("nvmlShutdown");
    return SUCCESS;
}

const char *nvmlErrorString(nvmlReturn_t error) {
    return error == 4 ? "Insufficient Permissions" : "the stub was told so";
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned length) {
    text(-1, "driver_version", "580.95.05", version, length);
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device) {
    static const char known[] = "GPU-fa000000-0000-0000-0000-00000000000";
    int i = uuid[strlen(uuid) - 1] - '0';
    if (strncmp(uuid, known, sizeof known - 1) != 0) return NOT_FOUND;
    if (i < 0 || i >= number(-1, "devices", 2)) return NOT_FOUND;
    *device = i + 1;
    return lost(*device);
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
    int i = ordinal(device);
    nvmlReturn_t refused = number(i, "no_memory", lost(device));
    memory->total = number(i, "total_mb", 24576) * MB;
    memory->reserved = number(i, "driver_mb", 0) * MB;
    memory->used = number(i, "used_mb", 1024) * MB;
    memory->free = memory->total - memory->reserved - memory->used;
    return refused;
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates) {
    rates->gpu = number(ordinal(device), "utilization", 37);
    rates->memory = 0;
    return lost(device);
}

#ifdef BEFORE_CUDA_12
nvmlReturn_t nvmlDeviceGetThermalSettings(nvmlDevice_t device, unsigned sensor,
                                          nvmlGpuThermalSettings_t *settings) {
    settings->count = 1;
    settings->sensor[sensor].current = number(ordinal(device), "temperature", 51);
    return lost(device);
}
#else
nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *reading) {
    reading->temperature = number(ordinal(device), "temperature", 51);
    return lost(device);
}
#endif

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned *milliwatts) {
    long long told = number(ordinal(device), "milliwatts", 123400);
    *milliwatts = (unsigned)told;
    return told < 0 ? NOT_SUPPORTED : lost(device);
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count,
                                                     nvmlProcessInfo_t *processes) {
    int i = ordinal(device);
    long long foreign = number(i, "pid_mb", 0), own = number(i, "own_mb", 0);
    unsigned needed = (foreign != 0) + (own != 0), room = *count;
    *count = needed;
    if (room < needed) return INSUFFICIENT_SIZE;
    memset(processes, 0, needed * sizeof *processes);
    if (own) *processes++ = (nvmlProcessInfo_t){.pid = getpid(), .used = own * MB};
    if (foreign) {
        processes->pid = number(i, "pid", 4711);
        processes->used = foreign < 0 ? ~0ULL : foreign * MB; /* all ones: not available */
    }
    return lost(device);
}

nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned *count,
                                                      nvmlProcessInfo_t *processes) {
    long long desktop = number(ordinal(device), "desktop_mb", 0);
    unsigned needed = desktop != 0, room = *count;
    *count = needed;
    if (room < needed) return INSUFFICIENT_SIZE;
    if (needed) *processes = (nvmlProcessInfo_t){.pid = 812, .used = desktop * MB};
    return lost(device);
}
